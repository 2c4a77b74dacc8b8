"""Image folders and lists with checks, so that broken data is reported and not trained on.

mmpretrain only warns of a class folder without images, stops at the first corrupt file
(hours into an epoch, sometimes without its name), and accepts a truncated one as its
decoder returns it.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.fileio import LocalBackend
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset, ImageNet
from mmpretrain.datasets.custom import find_folders, get_samples

from lm4ve.data.folder_listing import by_folder, list_files, warn_left_out
from lm4ve.data.image_files import ImageFilesMixin
from lm4ve.data.labels import read_list, refuse_lookalikes, refuse_other_order
from lm4ve.data.suffixes import IMAGE_SUFFIXES
from lm4ve.errors import UserError, listing
from lm4ve.files import leads_outside
from lm4ve.registry import DATASETS
from lm4ve.runner.missing import Missing, missing_in


class CheckedImageMixin(ImageFilesMixin):
    """Checks for data sets derived from mmpretrain's ``CustomDataset``.

    Args:
        on_corrupt (str, optional): What becomes of an image that is empty, truncated,
            unreadable or no image at all: see :mod:`lm4ve.data.integrity`.
        verify (bool, optional): Whether all images are decoded when the data set is
            loaded (about 0.25 ms per image and core). Default: where they are scored.
        max_pixels (int): See :class:`lm4ve.data.image_files.ImageFilesMixin`.
        *args, **kwargs: Passed to the data set.

    Raises:
        UserError: The annotation file is cut, has lines of another form, negative
            labels or two labels for an image, or names images outside of the folder; a
            class folder has no images; folders look alike, or ``classes`` names them in
            another order; a corrupt image was refused; all images are corrupt.

    Local folders are read by :mod:`lm4ve.data.folder_listing`: each real file once,
    nothing hidden; files that are left out are named in a warning.

    The check costs some 40 microseconds per image in training (see
    :func:`lm4ve.data.image_files.find_defect`, also for what it cannot find);
    formats other than JPEG and PNG are decoded three times.
    """

    def load_data_list(self) -> list:
        """Return path and label of each image of the list or, without one, of the folders."""
        if not self.ann_file:
            return super().load_data_list()
        num_classes = len(self.CLASSES) if self.CLASSES else None
        entries = read_list(
            fileio.get(self.ann_file, backend_args=self._backend_args),
            self.ann_file,
            has_labels=self.with_label,
            classes=num_classes,
            leads_outside=self._leads_outside,
        )
        backend = fileio.get_file_backend(self.img_prefix, enable_singleton=True)
        data_list = []
        for entry in entries:
            info = dict(img_path=backend.join_path(self.img_prefix, entry.name))
            if self.with_label:
                info['gt_label'] = entry.label
            data_list.append(info)
        return data_list

    def _leads_outside(self, name: str) -> bool:
        """Return whether a list's entry names a file outside of the folder, or an address."""
        if self.img_prefix:
            return leads_outside(name, self.img_prefix)
        return '://' in name and self._backend_args is None

    def _find_samples(self) -> list:
        """Return the images of the folder, for mmpretrain, which calls this without a list.

        They are paths, or pairs of path and label where the data set has labels.
        """
        samples: list = []
        if self.with_label:
            samples = self._find_labelled()
        else:
            samples = self._list_images(self.img_prefix)
        if not samples:
            endings = ', '.join(sorted(self.extensions))
            raise UserError(
                f"'{self.img_prefix}' has no images. Fix: dataset.data_root and "
                f'dataset.data_prefix, or dataset.extensions ({endings}).'
            )
        return samples

    def _find_labelled(self) -> list[tuple[str, int]]:
        """Return the images of the class folders, each with the number of its folder."""
        images_of_folder = self._list_folders(self.img_prefix)
        folders = list(images_of_folder)
        self.folder_to_idx = {folder: label for label, folder in enumerate(folders)}
        self._name_classes(folders)
        empty = [folder for folder in folders if not images_of_folder[folder]]
        refuse_empty(self.img_prefix, empty)
        samples = []
        for label, folder in enumerate(folders):
            for path in images_of_folder[folder]:
                samples.append((path, label))
        return samples

    def _list_images(self, root: str) -> list[str]:
        """Return the paths of the images below a folder, sorted."""
        if not _is_local(root):
            paths, _ = get_samples(root, None, self.is_valid_file)
            return paths
        found = list_files(root, self.is_valid_file)
        warn_left_out(found, root, type(self).__name__)
        return found.files

    def _list_folders(self, root: str) -> dict[str, list[str]]:
        """Return the folders of classes, sorted, each with the paths of its images below root."""
        if not _is_local(root):
            return self._list_remote_folders(root)
        found = list_files(root, self.is_valid_file)
        images_of_folder = by_folder(found)
        warn_left_out(found, root, type(self).__name__)
        return images_of_folder

    def _list_remote_folders(self, root: str) -> dict[str, list[str]]:
        """Return the folders of classes with their images, as :meth:`_list_folders` does.

        mmpretrain's functions list them, which work with any file backend.
        """
        all_folders, _ = find_folders(root)
        folders = [name for name in all_folders if not name.startswith('.')]
        label_of = {folder: label for label, folder in enumerate(folders)}
        samples, _ = get_samples(root, label_of, self.is_valid_file)
        images_of_folder: dict[str, list[str]] = {folder: [] for folder in folders}
        for path, label in samples:
            images_of_folder[folders[label]].append(path)
        return images_of_folder

    def _name_classes(self, folders: Sequence[str]) -> None:
        """Take the folders' names for classes, or check the names that are given.

        Raises:
            UserError: Folders look alike; names are of another number or order.
        """
        refuse_lookalikes({name: 'a folder' for name in folders}, self.img_prefix)
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(folders)
            return
        if len(self.CLASSES) != len(folders):
            raise UserError(
                f'dataset.classes{_describe_others(self.CLASSES, folders, self.img_prefix)}.'
            )
        refuse_other_order(self.CLASSES, folders, self.img_prefix)
        renamed = []
        for folder, name in zip(folders, self.CLASSES, strict=True):
            if folder != name:
                renamed.append(f'{folder!r} is {name!r}')
        if renamed:
            print_log(
                f"Classes of '{self.img_prefix}': {listing(renamed)}.", logger='current'
            )


def _describe_others(names: Sequence[str], folders: Sequence[str], root: str) -> str:
    """Say that names of classes are not as many as folders, in words that follow their field."""
    return (
        f" has {len(names)} names, but '{root}' has {len(folders)} folders: "
        f'{listing(folders)}'
    )


def _find_missing(
    data_class: Any, node: Mapping[str, Any], field: str
) -> list[Missing]:
    """Return the folders that a data set of class folders needs and that are not there.

    Args:
        data_class (type): The data set's.
        node (Mapping): Its config.
        field (str): The field of the config.
    """
    found = missing_in(data_class, node, field)
    metainfo = {**data_class.METAINFO, **(node.get('metainfo') or {})}
    names: Any = node.get('classes') or metainfo.get('classes')
    has_folders = node.get('with_label', True) and not node.get('ann_file')
    # They may also be the path of a list.
    are_known = isinstance(names, (list, tuple)) and not node.get('backend_args')
    if found or not has_folders or not are_known:
        return found
    prefix = node.get('data_prefix') or ''
    if isinstance(prefix, Mapping):
        prefix = prefix.get('img_path') or ''
    root = Path(node.get('data_root') or '', prefix)
    if not _is_local(str(root)) or not root.is_dir():
        return found
    folders = []
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.name.startswith('.'):
            folders.append(path.name)
    if len(folders) == len(names):
        return found
    return [
        Missing(
            (f'{field}.metainfo.classes',),
            _describe_others(names, folders, str(root)),
            'a folder for each class; or classes of your own as in '
            'configs/_base_/image/folder.py',
        )
    ]


def _is_local(root: str) -> bool:
    """Return whether a folder is on a disk, and not behind another file backend."""
    backend = fileio.get_file_backend(root, enable_singleton=True)
    return isinstance(backend, LocalBackend)


def refuse_empty(root: str, folders: Collection[str]) -> None:
    """Refuse class folders without images.

    Args:
        root (str): The folder of the class folders, for the message.
        folders (Collection[str]): Those without images.
    """
    if not folders:
        return
    raise UserError(
        f"{len(folders)} class folders in '{root}' hold no image: {listing(sorted(folders))}. "
        'Fix: put their images back, remove the folders, or set dataset.extensions.'
    )


@DATASETS.register_module()
class CheckedImageNet(CheckedImageMixin, ImageNet):
    """mmpretrain's ImageNet with the checks of :class:`CheckedImageMixin`::

        <data_root>/<split>/<wnid>/*.JPEG

    Args:
        data_root, split, data_prefix, ann_file, metainfo: Passed to mmpretrain's
            ``ImageNet``. The splits 'val' and 'test' set ``test_mode``.
        on_corrupt, verify, max_pixels: See :class:`CheckedImageMixin`.
        **kwargs: Passed to ``CustomDataset``.
    """

    layout = 'train/<wnid>/*.JPEG and val/<wnid>/*.JPEG'
    IMG_EXTENSIONS = IMAGE_SUFFIXES

    def __init__(self, data_root: str = '', split: str = '', **kwargs) -> None:
        kwargs.setdefault('test_mode', split in ('val', 'test'))
        super().__init__(data_root=data_root, split=split, **kwargs)

    @classmethod
    def find_missing(cls, node: Mapping[str, Any], field: str) -> list[Missing]:
        """See :func:`lm4ve.runner.missing.find_missing`; a split is a folder."""
        split = node.get('split')
        if not split:
            return _find_missing(cls, node, field)
        fields = dict(node)
        fields['data_prefix'] = node.get('data_prefix') or split
        # mmpretrain reads this list if it is there.
        annotations = f'meta/{split}.txt'
        is_there = Path(node.get('data_root') or '', annotations).exists()
        if is_there and not node.get('ann_file'):
            fields['ann_file'] = annotations
        return _find_missing(cls, fields, field)


@DATASETS.register_module()
class CheckedImageFolder(CheckedImageMixin, CustomDataset):
    """mmpretrain's ``CustomDataset`` with the checks of :class:`CheckedImageMixin`.

    Args:
        *args: Passed to ``CustomDataset``.
        extensions (Sequence[str]): The endings of images.
        **kwargs: Passed on as well.
    """

    def __init__(
        self, *args: Any, extensions: Sequence[str] = IMAGE_SUFFIXES, **kwargs: Any
    ) -> None:
        super().__init__(*args, extensions=extensions, **kwargs)

    @classmethod
    def find_missing(cls, node: Mapping[str, Any], field: str) -> list[Missing]:
        """See :func:`lm4ve.runner.missing.find_missing`."""
        return _find_missing(cls, node, field)
