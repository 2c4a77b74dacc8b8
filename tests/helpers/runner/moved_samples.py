"""Move samples from the second device to the CPU, and print how often it was waited for.

    python -m tests.helpers.runner.moved_samples

A process of its own, since the device stays defined in it. Prints the kinds of waits
with their numbers, as JSON; raises where a sample is not as it was.
"""

import json
from collections import Counter

import torch
from mmengine.structures import BaseDataElement, PixelData

from lm4ve.runner.evaluation import move_to_cpu
from tests.helpers import second_device


class Sample(BaseDataElement):
    """Has a field behind a property, as the hosts' samples have."""

    @property
    def pred_map(self) -> PixelData:
        return self._pred_map

    @pred_map.setter
    def pred_map(self, value: PixelData) -> None:
        self.set_field(value, '_pred_map', dtype=PixelData)


def samples() -> list[Sample]:
    """Return samples of several types and shapes, in part nested, on the CPU."""
    made = []
    for number in range(5):
        sample = Sample(metainfo=dict(number=number), name=str(number))
        sample.pred_score = torch.arange(3.0) + number
        sample.half = torch.ones(2, 3).T.to(torch.bfloat16) * number
        sample.gt_label = torch.tensor([number])
        sample.scalar = torch.tensor(number > 2)
        sample.empty = torch.zeros(0)
        sample.pred_map = PixelData(data=torch.full((1, 4, 4), number).byte())
        made.append(sample)
    return made


def main() -> None:
    second_device.define()
    expected = samples()
    moved = [sample.to(second_device.NAME) for sample in samples()]
    large = torch.zeros(300, 300, device=second_device.NAME)
    moved[0].large = large
    with second_device.WAITS.counting() as waits:
        move_to_cpu([*moved, 'no sample'])
    assert moved[0].pop('large') is large
    for before, after in zip(expected, moved, strict=True):
        compare(before, after)
    kinds: Counter[str] = Counter()
    for (kind, _), count in waits.items():
        kinds[kind] += count
    print(json.dumps(kinds))


def compare(before: BaseDataElement, after: BaseDataElement) -> None:
    """Raise unless two elements are equal, and all tensors of the second its own."""
    assert sorted(before.keys()) == sorted(after.keys())
    assert before.metainfo == after.metainfo
    for name, value in before.items():
        found = after.get(name)
        if isinstance(value, BaseDataElement):
            compare(value, found)
        elif isinstance(value, torch.Tensor):
            torch.testing.assert_close(found, value, rtol=0, atol=0)
            assert found.untyped_storage().nbytes() == value.nbytes
        else:
            assert found == value


if __name__ == '__main__':
    with second_device.SecondDevice():
        main()
