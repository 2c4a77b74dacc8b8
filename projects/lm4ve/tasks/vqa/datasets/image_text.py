"""Images with texts about them: where the images are, and that they are there."""

from collections.abc import Sequence
from typing import Any

import mmcv.transforms  # noqa: F401  (registers LoadImageFromFile)
from mmengine import fileio

from lm4ve.data.image_files import ImageFilesMixin
from lm4ve.errors import require
from lm4ve.files import is_file, leads_outside
from lm4ve.text.dataset import TextDataset

#: The number of images that are looked for before a training begins.
_LOOKED_FOR = 100


class ImageTextDataset(ImageFilesMixin, TextDataset):
    """Images with texts. What becomes of corrupt images: :mod:`lm4ve.data.integrity`.

    Args:
        ann_file (str): The file that names images and texts, below ``data_root``.
        data_root (str): The folder of the data set.
        data_prefix (dict): ``img_path``, the folder of the images, below ``data_root``;
            default: that folder itself.
        pipeline (Sequence): Transforms, ending with ``lm4ve.PackVisionLanguage``.
        test_mode (bool): For data that is evaluated on: images are checked when the
            data set is loaded, and entries are not replaced by others.
        on_corrupt, verify: See :class:`lm4ve.data.integrity.IntegrityMixin`. An
            image with several texts is read once in the scan. Empty texts count as
            damage, too.
        max_pixels (int): See :class:`lm4ve.data.image_files.ImageFilesMixin`.
        **kwargs: Passed to MMEngine's ``BaseDataset``.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: dict | None = None,
        **kwargs: Any,
    ) -> None:
        folders = dict(img_path='')
        folders.update(data_prefix or {})
        super().__init__(
            ann_file=ann_file, data_root=data_root, data_prefix=folders, **kwargs
        )

    def image_path(self, name: str, where: str) -> str:
        """Return the path of an image that a file names.

        Args:
            name (str): Relative to the folder of the images.
            where (str): The file and entry, for messages.

        Raises:
            UserError: It leads out of that folder, which a file must not.
        """
        folder = self.data_prefix['img_path']
        is_named = bool(name.strip())
        require(
            is_named and not leads_outside(name, folder or '.'),
            f"{where}: '{name}' leads out of the folder '{folder}'. Fix: name a file in it.",
        )
        if not folder:
            return name
        return fileio.join_path(folder, name)

    def check_some_images(self, paths: Sequence[str]) -> None:
        """Refuse a training whose first images are all missing; a test reads all of them anyway."""
        if self._backend_args is not None or self.is_scanned():
            return
        first = list(dict.fromkeys(paths))[:_LOOKED_FOR]
        require(
            any(is_file(path) for path in first),
            f"'{paths[0]}' and the next images do not exist. Fix: dataset.data_root and "
            'dataset.data_prefix.',
        )
