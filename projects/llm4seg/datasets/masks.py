"""Pictures with masks in mmsegmentation's layout, with checks of both files.

mmsegmentation stops at the first file that its decoder does not read, hours into an epoch,
and mostly without its name.
"""

from typing import Any

from mmseg.datasets import BaseSegDataset

from lm4ve.data.image_files import ImageFilesMixin, find_defect
from lm4ve.registry import DATASETS


@DATASETS.register_module()
class CheckedSegDataset(ImageFilesMixin, BaseSegDataset):
    """mmsegmentation's ``BaseSegDataset`` with the rule for damaged files.

    Args:
        *args: Passed to ``BaseSegDataset``.
        max_pixels (int): See :class:`lm4ve.data.image_files.ImageFilesMixin`.
        on_corrupt, verify: See :class:`lm4ve.data.integrity.IntegrityMixin`. A sample is
            damaged if its picture or its mask is.
        **kwargs: Passed on as well.

    Raises:
        UserError: Damaged files were refused.
        StorageError: Storage does not give a file.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Picture -> its mask.
        self._mask_of: dict[str, str] = {}
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the picture and the mask of each sample, as mmsegmentation does."""
        data_list: list[dict] = super().load_data_list()
        for info in data_list:
            if 'seg_map_path' in info:
                self._mask_of[info['img_path']] = info['seg_map_path']
        return data_list

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return what is wrong with a picture or its mask, or None."""
        defect = super().find_defect(path, decode)
        mask = self._mask_of.get(path)
        if defect is not None or mask is None:
            return defect
        defect = find_defect(
            mask,
            decode,
            self._backend_args,
            opencv=False,
            max_pixels=self.max_pixels,
        )
        if defect is None:
            return None
        return f"has the mask '{mask}', which {defect}"
