"""Images in shards: the samples of a data set in few large files."""

from pathlib import Path

from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from lm4ve.data.shards import read_left_out, read_samples
from lm4ve.registry import DATASETS
from lm4ve.tasks.image.datasets.folders import CheckedImageMixin


@DATASETS.register_module()
class ImageNetShards(CheckedImageMixin, BaseDataset):
    """ImageNet, or other images with classes, in shards (:mod:`lm4ve.data.shards`)::

        <data_root>/<split>.index.json, <split>-000000.tar, <split>-000001.tar, ...

    ``tools/dataset_converters/shards.py`` writes them from any data set of images.
    Entries have the same keys as those of :class:`lm4ve.tasks.image.CheckedImageNet`,
    so that pipelines stay as they are; ``img_path`` is an address that MMEngine's file
    backends read.

    Args:
        data_root (str): The folder; local.
        split (str): The name of the index. 'val' and 'test' set ``test_mode``.
        on_corrupt, verify, max_pixels: See :class:`lm4ve.tasks.image.CheckedImageMixin`. Files that
            the tool has left out count as damaged samples.
        **kwargs: Passed to mmpretrain's ``BaseDataset``; ``classes`` or ``metainfo``
            for other classes than ImageNet's.

    Raises:
        UserError: A shard is missing or cut, or images were refused.
    """

    METAINFO = {'classes': IMAGENET_CATEGORIES}

    def __init__(self, data_root: str = '', split: str = 'train', **kwargs) -> None:
        self.split = split
        kwargs.setdefault('test_mode', split in ('val', 'test'))
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return address and label of each sample."""
        index = Path(self.data_root, f'{self.split}.index.json')
        samples = read_samples(index)
        count, examples = read_left_out(index)
        self.leave_out(
            'are not in the shards', examples, len(samples) + count, count=count
        )
        return [dict(img_path=address, gt_label=label) for address, label in samples]
