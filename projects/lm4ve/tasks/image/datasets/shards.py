"""ImageNet in shards: the samples of its folders, in few large files."""

from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from lm4ve.errors import UserError, listing
from lm4ve.registry import DATASETS
from lm4ve.tasks.base.shards import index_path, read_samples
from lm4ve.tasks.image import TASK
from lm4ve.tasks.image.datasets.folders import CheckedImageMixin


@DATASETS.register_module()
class ImageNetShards(CheckedImageMixin, BaseDataset):
    """ImageNet, or other images with classes, in shards (:mod:`lm4ve.tasks.base.shards`)::

        <data_root>/<split>.index.json, <split>-000000.tar, <split>-000000.json, ...

    ``tools/dataset_converters/shards.py`` writes them from any data set of images. Entries have
    the same keys as those of :class:`lm4ve.tasks.image.CheckedImageNet`, so that pipelines stay
    as they are; ``img_path`` is an address that MMEngine's file backends read.

    Args:
        data_root (str): The folder; local.
        split (str): The name of the index. 'val' and 'test' set ``test_mode``.
        on_corrupt, verify: See :class:`lm4ve.tasks.image.CheckedImageMixin`. A shard that is
            missing or cut is refused or left out by the same policy.
        **kwargs: Passed to mmpretrain's ``BaseDataset``; ``classes`` or ``metainfo`` for other
            classes than ImageNet's.

    Raises:
        UserError: The index is missing or damaged; shards or images were refused; labels are
            of other classes.
    """

    METAINFO = {'classes': IMAGENET_CATEGORIES}

    def __init__(self, data_root: str = '', split: str = 'train', **kwargs) -> None:
        self.split = split
        kwargs.setdefault('test_mode', split in ('val', 'test'))
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return address and label of each sample."""
        index = str(index_path(self.data_root, self.split))
        samples = read_samples(index, TASK.input_suffixes, self.on_corrupt)
        classes = range(len(self.metainfo['classes']))
        if wrong := sorted({str(label) for _, label in samples if label not in classes}):
            raise UserError(f"'{index}': labels {listing(wrong)} exceed {len(classes)} classes.")
        return [dict(img_path=address, gt_label=label) for address, label in samples]
