"""MedMNIST's files: small pictures and volumes of eighteen medical sets, one ``.npz`` each."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset

from lm4ve.errors import UserError, check
from lm4ve.registry import DATASETS

_SPLITS = ('train', 'val', 'test')


@DATASETS.register_module()
class MedMNIST(BaseDataset):
    """A set of MedMNIST v2 (2D or 3D), read without executing anything of the file.

    Each sample gives the pipeline ``img``, uint8 ``[H, W, 3]`` in BGR of a picture and
    ``[3, D, H, W]`` of a volume, in which one channel is repeated, and ``gt_label``; of
    a set with several labels a picture (chestmnist), ``gt_score``, a 0 or 1 for each.

    Args:
        data_root (str): The folder with the files of https://medmnist.com.
        flag (str): The set, such as 'retinamnist' or 'fracturemnist3d'.
        split (str): 'train', 'val' or 'test'.
        size (int): Pixels a side: 28, or what the set has beside it.
        **kwargs: Passed to :class:`mmengine.dataset.BaseDataset`.

    Raises:
        UserError: There is no such set; the file is missing, cut, or of pickled arrays;
            or its arrays are not this set's.
    """

    def __init__(
        self, data_root: str, flag: str, split: str = 'train', size: int = 28, **kwargs
    ) -> None:
        from medmnist.info import INFO

        check('dataset.flag', flag, choices=INFO)
        check('dataset.split', split, choices=_SPLITS)
        self.info, self.split = INFO[flag], split
        self.is_multi_label = self.info['task'].startswith('multi-label')
        end = '' if size == 28 else f'_{size}'
        self.file = Path(data_root) / f'{flag}{end}.npz'
        self.sides = (size,) * (3 if flag.endswith('3d') else 2)
        names = self.info['label']
        classes = tuple(names[key] for key in sorted(names, key=int))
        kwargs.setdefault('serialize_data', False)
        metainfo = dict(classes=classes, medmnist_task=self.info['task'])
        super().__init__(data_root=data_root, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        self.images, labels = self._read()
        if self.is_multi_label:
            return [
                dict(row=i, gt_score=y.astype(np.float32)) for i, y in enumerate(labels)
            ]
        return [dict(row=i, gt_label=int(y[0])) for i, y in enumerate(labels)]

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """Read and check images ``[N, side, side, ...]`` and labels ``[N, labels]``."""
        try:
            with np.load(self.file, allow_pickle=False) as arrays:
                images, labels = (
                    arrays[f'{self.split}_{n}'] for n in ('images', 'labels')
                )
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ) as e:
            raise UserError(
                f"'{self.file}' is no file of MedMNIST: {e}. Fix: download it again."
            ) from e
        classes = len(self.info['label'])
        columns = classes if self.is_multi_label else 1
        sides = images.shape[1 : 1 + len(self.sides)]
        fits = (
            sides == self.sides
            and images.dtype == np.uint8
            and labels.dtype.kind in 'iub'
        )
        if not fits or labels.shape != (len(images), columns):
            raise UserError(
                f"'{self.file}' has images {images.dtype} {list(images.shape)} and labels "
                f'{list(labels.shape)}, which are not of {classes} classes of {self.sides}.'
            )
        if labels.min() < 0 or labels.max() >= (2 if self.is_multi_label else classes):
            raise UserError(
                f"'{self.file}' has the label {labels.max()}, but {classes} classes are known."
            )
        return images, labels

    def get_data_info(self, idx: int) -> dict:
        """Return picture or volume ``idx``."""
        info = super().get_data_info(idx)
        img = self.images[info['row']]
        if len(self.sides) == 3:
            img = np.repeat(img[None], 3, axis=0)
        else:  # in BGR, as mmcv reads files
            img = (
                np.repeat(img[..., None], 3, axis=2)
                if img.ndim == 2
                else img[..., ::-1].copy()
            )
        return dict(info, img=img, img_shape=self.sides, ori_shape=self.sides)
