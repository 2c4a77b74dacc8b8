"""What data sets of questions and of captions about images share: images and their paths."""

import itertools
import os
import os.path as osp
from collections.abc import Sequence
from typing import Any

import mmcv.transforms  # noqa: F401  (registers LoadImageFromFile)
from mmengine import fileio

from lm4ve.errors import UserError
from lm4ve.files import leads_outside
from lm4ve.tasks.base.image_files import backend_args_of, find_defect
from lm4ve.tasks.base.language.text_entries import TextDataset

#: How many images are looked for before a training begins.
_LOOKED_FOR = 100


class ImageTextDataset(TextDataset):
    """Images with texts. What becomes of corrupt images: :mod:`lm4ve.tasks.base.integrity`.

    Args:
        ann_file (str): The file that names images and texts, below ``data_root``.
        data_root (str): The folder of the data set.
        data_prefix (dict, optional): ``img_path``, the folder of the images, below
            ``data_root``; default: that folder itself.
        pipeline (Sequence): Transforms, ending with ``lm4ve.PackVisionLanguage``.
        test_mode (bool): For data that is evaluated on: images are checked when the
            data set is loaded, and entries are not replaced by others.
        on_corrupt, verify: See :class:`lm4ve.tasks.base.integrity.IntegrityMixin`. An image
            with several texts is read once in the scan. With 'refuse' empty texts are
            refused too.
        **kwargs: Passed to MMEngine's ``BaseDataset``.
    """

    noun = 'image'
    scan_decodes = True

    def __init__(
        self,
        ann_file: str = '',
        data_root: str = '',
        data_prefix: dict | None = None,
        pipeline: Sequence = (),
        test_mode: bool = False,
        **kwargs: Any,
    ) -> None:
        prefix = {'img_path': '', **(data_prefix or {})}
        if list(prefix) != ['img_path'] or not isinstance(prefix['img_path'], str):
            raise UserError(
                f'dataset.data_prefix={data_prefix!r} must be dict(img_path=...), the folder of '
                'the images below dataset.data_root.'
            )
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=prefix,
            pipeline=list(pipeline),
            test_mode=test_mode,
            **kwargs,
        )

    # ------------------------------------------------------------------ the images
    def path_of(self, info: dict) -> str:
        """Return the image file of an entry."""
        return info['img_path']

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Say what is wrong with an image file, or None."""
        return find_defect(path, decode, self._backend_args)

    @property
    def _backend_args(self) -> dict | None:
        return backend_args_of(self.pipeline.transforms)

    @property
    def image_folder(self) -> str:
        """The folder that images are named relative to."""
        return self.data_prefix['img_path']

    def check_image_folder(self) -> None:
        """Refuse a folder of images that is not there.

        Raises:
            UserError: It names the folder.
        """
        folder = self.image_folder
        if self._backend_args is None and not osp.isdir(folder or '.'):
            raise UserError(
                f"The image folder '{folder}' does not exist (dataset.data_root="
                f"'{self.data_root}'). Fix: put or link the images there, or set "
                'dataset.data_root and dataset.data_prefix.'
            )

    def image_path(self, name: object, where: str) -> str:
        """Return the path of an image that a file names.

        Args:
            name (object): What the file has as the image's name.
            where (str): The file and entry, for messages.

        Raises:
            UserError: It is no name, or leads out of the image folder.
        """
        if not isinstance(name, str) or not name.strip() or not _can_be_opened(name):
            raise UserError(f'{where}: the image must be the name of a file, not {name!r}.')
        if leads_outside(name, self.image_folder or '.'):
            raise UserError(
                f"{where} names the image '{name}' outside of the image folder "
                f"'{self.image_folder}'. Fix: correct it, or set dataset.data_prefix."
            )
        return fileio.join_path(self.image_folder, name) if self.image_folder else name

    def check_some_images(self, paths: Sequence[str]) -> None:
        """Refuse a data set without its images before a training begins.

        A test reads all of them anyway.

        Raises:
            UserError: None of the first images exists.
        """
        if self._backend_args is not None or self.is_scanned():
            return
        some = list(itertools.islice(dict.fromkeys(paths), _LOOKED_FOR))
        if some and not any(map(osp.isfile, some)):
            raise UserError(
                f'{type(self).__name__}: none of the first {len(some)} images exists, for example '
                f"'{some[0]}'. Fix: put or link the images there, or set dataset.data_root and "
                'dataset.data_prefix.'
            )


def _can_be_opened(name: str) -> bool:
    try:
        return b'\0' not in os.fsencode(name)
    except UnicodeEncodeError:
        return False
