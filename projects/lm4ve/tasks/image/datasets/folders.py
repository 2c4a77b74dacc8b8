"""Image folders that are checked, so that broken data is named and not trained on.

mmpretrain only warns of a class folder without images, stops at the first
corrupt file (hours into an epoch, without its name in some cases), and takes
what its decoder makes of a truncated one.
"""

from collections.abc import Sequence

from mmengine import fileio
from mmpretrain.datasets import CustomDataset, ImageNet
from mmpretrain.datasets.custom import find_folders

from lm4ve.errors import UserError, listing
from lm4ve.files import leads_outside, whole_lines
from lm4ve.registry import DATASETS
from lm4ve.tasks.base.image_files import backend_args_of, find_defect
from lm4ve.tasks.base.integrity import IntegrityMixin


def empty_folders_error(root: str, folders: Sequence[str], extensions: Sequence[str]) -> UserError:
    """The error for class folders without images."""
    return UserError(
        f"{len(folders)} class folder(s) in '{root}' hold no image: "
        f'{listing(sorted(folders))}. Looked for files ending in '
        f'{", ".join(sorted(extensions))}. Fix: put their images back, or '
        'remove the folders if the data set is your own; other endings go into '
        'dataset.extensions.'
    )


class CheckedImageMixin(IntegrityMixin):
    """Checks for data sets derived from mmpretrain's ``CustomDataset``.

    Args:
        on_corrupt (str): What becomes of an image that is empty, truncated,
            unreadable or no image at all: 'skip' or 'refuse', as
            :mod:`lm4ve.tasks.base.integrity` describes.
        verify (bool, optional): Whether all images are decoded when the data set is
            loaded (about 0.25 ms an image and core); default: for tests only.
        *args, **kwargs: Passed to the data set.

    Raises:
        UserError: The folder or the annotation file is missing; the file names images
            outside of the folder; a class folder
            has no images; the folders do not match the classes; a corrupt image
            was refused; nothing but corrupt images was found.

    Cost of the check in training: some 10 microseconds an image (see
    :func:`lm4ve.tasks.base.image_files.find_defect`, also for what it cannot find);
    formats other than JPEG and PNG are decoded twice.
    """

    noun = 'image'
    scan_decodes = True

    def path_of(self, info: dict) -> str:
        """Return the image file of an entry."""
        return info['img_path']

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Say what is wrong with an image file, or None."""
        return find_defect(path, decode, self._backend_args)

    def load_data_list(self) -> list:
        self.check_paths()
        if self.ann_file:
            self._check_list()
        return super().load_data_list()

    def _check_list(self) -> None:
        """Refuse a list that is cut, has other lines, or leads out of the image folder."""
        content = fileio.get(self.ann_file, backend_args=self._backend_args)
        lines = [line.strip() for line in whole_lines(content, self.ann_file)]
        names, wrong = lines, []
        if not any(lines):
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' names no image. Fix: write the list again."
            )
        if self.with_label:
            parts = [line.rpartition(' ') for line in lines]
            names = [name for name, _, _ in parts]
            wrong = [
                f'line {i}'
                for i, (name, _, label) in enumerate(parts, 1)
                if not (name and label.isdecimal())
            ]
        if wrong:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' has {len(wrong)} line(s) that are no path "
                f'and label: {listing(wrong)}. Expected a path, a space and an integer from 0. '
                'Fix: correct them, or set dataset.with_label=False for a list of paths.'
            )
        if not self.img_prefix:
            addresses = [f'line {i}' for i, n in enumerate(names, 1) if '://' in n]
            if addresses and self._backend_args is None:
                raise UserError(
                    f"dataset.ann_file: '{self.ann_file}' names {len(addresses)} address(es): "
                    f'{listing(addresses)}. Fix: name local files, or give the loader of the '
                    'pipeline backend_args, which say from where images are fetched.'
                )
            return
        outside = [f'line {i}' for i, n in enumerate(names, 1) if leads_outside(n, self.img_prefix)]
        if outside:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' names {len(outside)} image(s) outside of the "
                f"image folder '{self.img_prefix}': {listing(outside)}. Fix: correct them, or set "
                "data_root='' and data_prefix='' for a list of absolute paths."
            )

    def check_paths(self) -> None:
        """Refuse a missing annotation file or image folder."""
        if self.ann_file and not fileio.exists(self.ann_file):
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' does not exist. Fix: "
                'check dataset.data_root and ann_file.'
            )
        by_list = self.ann_file and not self.img_prefix  # of absolute paths
        if not by_list and self._backend_args is None and not fileio.isdir(self.img_prefix):
            raise UserError(
                f"The image folder '{self.img_prefix}' does not exist "
                f"(dataset.data_root='{self.data_root}'). Fix: put or link the "
                'data there, or set dataset.data_root and data_prefix.'
            )

    @property
    def _backend_args(self) -> dict | None:
        """How the pipeline's loader reads files (not every path is local)."""
        return backend_args_of(self.pipeline.transforms)

    def _find_samples(self) -> list:
        if not self.with_label:
            return super()._find_samples()
        root = self.img_prefix
        folders, _ = find_folders(root)
        if not folders:
            raise UserError(
                f"'{root}' has no class folders. Fix: one folder a class below "
                'it, or name a list of images in dataset.ann_file.'
            )
        if self.CLASSES is not None and len(self.CLASSES) != len(folders):
            raise UserError(
                f"'{root}' has {len(folders)} class folders ({listing(folders)})"
                f', and the data set {len(self.CLASSES)} classes. Fix: check '
                'dataset.data_root and data_prefix, or set dataset.classes.'
            )
        try:
            samples = super()._find_samples()
        except RuntimeError as e:  # mmpretrain's error for no file at all
            raise empty_folders_error(root, folders, self.extensions) from e
        used = {label for _, label in samples}
        empty = [f for f, i in self.folder_to_idx.items() if i not in used]
        if empty:
            raise empty_folders_error(root, empty, self.extensions)
        return samples


@DATASETS.register_module()
class CheckedImageNet(CheckedImageMixin, ImageNet):
    """mmpretrain's ImageNet with the checks of :class:`CheckedImageMixin`.

    Args:
        data_root, split, data_prefix, ann_file, metainfo: Passed to mmpretrain's
            ``ImageNet``. The splits 'val' and 'test' set ``test_mode``.
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
