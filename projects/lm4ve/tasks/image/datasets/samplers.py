"""Repeated augmentation over a whole number of batches, as DeiT and the paper's release do."""

from collections.abc import Sized
from typing import Any

from mmpretrain.datasets import RepeatAugSampler

from lm4ve.errors import UserError
from lm4ve.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ReleasedRepeatAugSampler(RepeatAugSampler):
    """mmpretrain's ``RepeatAugSampler`` whose epochs have a multiple of some number of samples.

    The release floors an epoch to a multiple of 256 samples, which its processes share out.

    Args:
        dataset (Sized): The data.
        multiple_of (int): The number.
        **kwargs: Passed to mmpretrain's sampler.

    Raises:
        UserError: There are fewer samples than that, so that an epoch would have none.
    """

    def __init__(self, dataset: Sized, multiple_of: int, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        count = len(dataset)
        if count < multiple_of:
            raise UserError(
                f'train_dataloader.sampler.multiple_of={multiple_of}: an epoch would be empty, '
                f'since there are {count} samples. Fix: '
                'train_dataloader.sampler.multiple_of=1 train_dataloader.drop_last=False.'
            )
        samples_of_epoch = count // multiple_of * multiple_of
        self.num_selected_samples = samples_of_epoch // self.world_size
