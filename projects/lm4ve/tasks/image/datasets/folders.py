"""Image folders and lists with checks, so that broken data is reported and not trained on.

mmpretrain only warns of a class folder without images, stops at the first corrupt file (hours
into an epoch, sometimes without its name), and accepts a truncated one as its decoder returns it.
"""

import re
from collections.abc import Collection

from mmengine import fileio
from mmpretrain.datasets import CustomDataset, ImageNet

from lm4ve.errors import UserError, listing
from lm4ve.files import leads_outside, whole_lines
from lm4ve.registry import DATASETS
from lm4ve.tasks.base.image_files import ImageFilesMixin


class CheckedImageMixin(ImageFilesMixin):
    """Checks for data sets derived from mmpretrain's ``CustomDataset``.

    Args:
        on_corrupt (str): Policy for an image that is empty, truncated, unreadable or no image at
            all: 'skip' or 'refuse', see :mod:`lm4ve.tasks.base.integrity`.
        verify (bool, optional): Whether all images are decoded when the data set is loaded
            (about 0.25 ms per image and core). Default: for tests only.
        *args, **kwargs: Passed to the data set.

    Raises:
        UserError: The annotation file is cut, has lines of another form, or names images outside
            of the folder; a class folder has no images; a corrupt image was refused; all images
            are corrupt.

    The check costs some 10 microseconds per image in training (see
    :func:`lm4ve.tasks.base.image_files.find_defect`, also for what it cannot find); formats other
    than JPEG and PNG are decoded three times.
    """

    def load_data_list(self) -> list:
        if self.ann_file:
            self._check_list()
        return super().load_data_list()

    def _check_list(self) -> None:
        """Refuse a list that is cut, has other lines, or leads out of the image folder."""
        lines = whole_lines(
            fileio.get(self.ann_file, backend_args=self._backend_args), self.ann_file
        )
        wrong = [] if lines else ['it names no image']
        for number, line in enumerate(map(str.strip, lines), 1):
            name, _, label = line.rpartition(' ') if self.with_label else (line, ' ', '0')
            if not name or not re.fullmatch(r'\d{1,9}', label):
                wrong.append(f'line {number} is no path{" and label" * self.with_label}')
            elif self._leads_outside(name):
                wrong.append(f'line {number} leads outside of the image folder')
        if wrong:
            raise UserError(f"dataset.ann_file='{self.ann_file}': {listing(wrong)}.")

    def _leads_outside(self, name: str) -> bool:
        if self.img_prefix:
            return leads_outside(name, self.img_prefix)
        return '://' in name and self._backend_args is None

    def _find_samples(self) -> list:
        samples = super()._find_samples()
        if self.with_label:
            used = {label for _, label in samples}
            refuse_empty(
                self.img_prefix, [f for f, i in self.folder_to_idx.items() if i not in used]
            )
            # Labels count the sorted folders, whatever the order of the names.
            named = enumerate(self.CLASSES)
            if moved := [c for i, c in named if self.folder_to_idx.get(c, i) != i]:
                raise UserError(
                    f"dataset.classes names folders of '{self.img_prefix}' out of order: "
                    f'{listing(moved)}. Fix: the order of the sorted folders.'
                )
        return samples


def refuse_empty(root: str, folders: Collection[str]) -> None:
    """Raise an error if there are class folders without images."""
    if folders:
        raise UserError(
            f"{len(folders)} class folders in '{root}' hold no image: {listing(sorted(folders))}. "
            'Fix: put their images back, remove the folders, or set dataset.extensions.'
        )


@DATASETS.register_module()
class CheckedImageNet(CheckedImageMixin, ImageNet):
    """mmpretrain's ImageNet with the checks of :class:`CheckedImageMixin`.

    Args:
        data_root, split, data_prefix, ann_file, metainfo: Passed to mmpretrain's ``ImageNet``.
            The splits 'val' and 'test' set ``test_mode``.
        on_corrupt, verify: See :class:`CheckedImageMixin`.
        **kwargs: Passed to ``CustomDataset``.
    """

    def __init__(self, data_root: str = '', split: str = '', **kwargs) -> None:
        kwargs.setdefault('test_mode', split in ('val', 'test'))
        super().__init__(data_root=data_root, split=split, **kwargs)


@DATASETS.register_module()
class CheckedImageFolder(CheckedImageMixin, CustomDataset):
    """mmpretrain's ``CustomDataset`` with the checks of :class:`CheckedImageMixin`.

    Set ``test_mode=True`` for data that is evaluated on.
    """
