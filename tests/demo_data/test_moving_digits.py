"""The moving digits move as the names of their classes say."""

import numpy as np

from lm4ve.demo_data import moving_digits as md


def test_directions_are_those_of_their_names():
    # Name of a direction -> the axis that it moves along, and the sign of its steps.
    directions = dict(left=(0, -1), right=(0, 1), up=(1, -1), down=(1, 1))
    angles = np.exp(2j * np.pi * np.arange(md.SIZE) / md.SIZE)
    for frames, label in md.clips('test', 64):
        name = md.CLASSES[label]
        mass = frames.sum((1, 2), dtype=float)
        # The center of mass on a torus, in pixels.
        sums = np.stack(
            [(frames.sum(axis) * angles).sum(-1) for axis in (1, 2)], axis=-1
        )
        shift = np.angle(sums[1] / sums[0]) / (2 * np.pi) * md.SIZE
        if name in directions:
            along, sign = directions[name]
            assert 1 < sign * shift[along] < 5
            assert abs(shift[1 - along]) < 0.5
        elif name in ('growing', 'shrinking'):
            # Of eight frames one or two jumps lead back into the range.
            assert np.median(np.diff(mass)) * (1 if name == 'growing' else -1) > 0


def test_clips_of_a_held_out_scan_go_together():
    is_val = md.draw_val_clips(400, seed=1)
    scans = np.array([scan for scan, _, _ in md.plan_clips('train', 400)])
    assert 0 < is_val.sum() < 200
    assert not set(scans[is_val]) & set(scans[~is_val])
