"""Tuning never sees the test split: the demo sets' training splits cut in two."""

import numpy as np
import pytest


def test_digits_fit_and_val_are_the_training_split():
    from lm4ve.tasks.image import DigitsDataset

    def images(split):
        data = DigitsDataset(split=split)
        infos = [data.get_data_info(i) for i in range(len(data))]
        counts = np.bincount([i['gt_label'] for i in infos], minlength=10)
        return [i['img'].tobytes() for i in infos], counts

    (train, of_train), (fit, _), (val, of_val) = map(images, ('train', 'fit', 'val'))
    assert sorted(fit + val) == sorted(train) and (len(fit), len(val)) == (1005, 252)
    assert np.abs(of_val - 0.2 * of_train).max() <= 1
    assert val == images('val')[0]


def test_primitives_fit_and_val_are_the_training_split(tmp_path):
    from lm4ve.tasks.pointcloud import PrimitivesDataset

    def clouds(split):
        data = PrimitivesDataset(split=split, per_class=5, num_points=16, cache_dir=str(tmp_path))
        samples = [data[i] for i in range(len(data))]
        return {(s['points'].tobytes(), s['gt_label']) for s in samples}

    train, fit, val = map(clouds, ('train', 'fit', 'val'))
    assert fit | val == train and not fit & val
    assert sorted(label for _, label in val) == list(range(10))


def test_traffic_parts_share_no_simulation(tmp_path, monkeypatch):
    pytest.importorskip('pyarrow')
    from lm4ve.tasks.motion.demo import traffic_files

    monkeypatch.setattr(traffic_files, 'PER_SIMULATION', 2)

    def scenes(**kwargs):
        data = traffic_files.TrafficDataset(
            'train', root=str(tmp_path / 'd'), counts=dict(train=6, val=2), **kwargs
        )
        return [data.scene(i).scene_id for i in range(len(data))]

    fit, val = scenes(part='fit'), scenes(part='val')
    # Three simulations of two scenes each, in their order: the last is held out.
    assert fit + val == scenes() and len(val) == 2
