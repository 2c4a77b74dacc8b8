"""MedMNIST's files: small pictures and volumes of eighteen medical sets, one ``.npz`` each."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.errors import UserError, check
from lm4ve.files import naming_storage_errors
from lm4ve.registry import DATASETS

_SPLITS = ('train', 'val', 'test')
#: What NumPy raises for a file that is missing, cut, or of other or pickled arrays.
_READ_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


@DATASETS.register_module()
class MedMNIST(IntegrityMixin):
    """A set of MedMNIST v2 (2D or 3D), read without executing anything of the file.

    Each sample gives the pipeline ``img``, uint8 ``[H, W, 3]`` in BGR of a picture and
    ``[3, D, H, W]`` of a volume, in which one channel is repeated, and ``gt_label``; of
    a set with several labels a picture (chestmnist), ``gt_score``, a 0 or 1 for each.

    Args:
        data_root (str): The folder with the files of https://medmnist.com.
        flag (str): The set, such as 'retinamnist' or 'fracturemnist3d'.
        split (str): 'train', 'val' or 'test'.
        size (int): Pixels a side: 28, or what the set has beside it.
        on_corrupt, verify: Accepted as by all data sets. All samples are in one file,
            which is read whole and checked by its checksums: none is damaged alone.
        **kwargs: Passed to :class:`mmengine.dataset.BaseDataset`.

    Raises:
        UserError: There is no such set; the file is missing, cut, or of pickled arrays;
            or its arrays are not this set's.
        StorageError: Storage does not give the file.
    """

    noun = 'image'

    def __init__(
        self, data_root: str, flag: str, split: str = 'train', size: int = 28, **kwargs
    ) -> None:
        from medmnist.info import INFO

        check('dataset.flag', flag, choices=INFO)
        check('dataset.split', split, choices=_SPLITS)
        self.info = INFO[flag]
        self.split = split
        self.is_multi_label = self.info['task'].startswith('multi-label')
        file_name = flag if size == 28 else f'{flag}_{size}'
        self.file = Path(data_root) / f'{file_name}.npz'
        is_volume = flag.endswith('3d')
        self.sides = (size, size, size) if is_volume else (size, size)
        names = self.info['label']
        # The keys are the labels' numbers as texts.
        classes = tuple(names[key] for key in sorted(names, key=int))
        kwargs.setdefault('serialize_data', False)
        metainfo = dict(classes=classes, medmnist_task=self.info['task'])
        super().__init__(data_root=data_root, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read and check the file, keep its images, and return row and labels of each."""
        self.images, labels = self._read()
        self._check(self.images, labels)
        data_list = []
        for row, row_labels in enumerate(labels):
            if self.is_multi_label:
                info = dict(row=row, gt_score=row_labels.astype(np.float32))
            else:
                info = dict(row=row, gt_label=int(row_labels[0]))
            data_list.append(info)
        return data_list

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """Read images ``[N, side, side, ...]`` and labels ``[N, labels]``."""
        try:
            with (
                naming_storage_errors(self.file),
                np.load(self.file, allow_pickle=False) as arrays,
            ):
                images = arrays[f'{self.split}_images']
                labels = arrays[f'{self.split}_labels']
        except _READ_ERRORS as error:
            raise UserError(
                f"'{self.file}' is no file of MedMNIST: {error}. Fix: download it again."
            ) from error
        return images, labels

    def _check(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Refuse arrays that are not those of this set."""
        num_classes = len(self.info['label'])
        num_columns = num_classes if self.is_multi_label else 1
        sides = images.shape[1 : 1 + len(self.sides)]
        have_types = images.dtype == np.uint8 and labels.dtype.kind in 'iub'
        have_shapes = sides == self.sides and labels.shape == (len(images), num_columns)
        if not have_types or not have_shapes:
            raise UserError(
                f"'{self.file}' has images {images.dtype} {list(images.shape)} and labels "
                f'{list(labels.shape)}, which are not of {num_classes} classes of {self.sides}.'
            )
        # Several labels a picture are a 0 or 1 for each class.
        num_values = 2 if self.is_multi_label else num_classes
        if labels.min() < 0 or labels.max() >= num_values:
            raise UserError(
                f"'{self.file}' has the label {labels.max()}, but {num_classes} classes are known."
            )

    def path_of(self, info: dict) -> str:
        """Return the file, with the number of an entry's image in it."""
        return f'{self.file} (image {info["row"]})'

    def path_at(self, idx: int) -> str:
        """Return the file and the number of sample ``idx`` in it, without its pixels."""
        return self.path_of(super().get_data_info(idx))

    def is_scanned(self) -> bool:
        """Return False: the file was read whole."""
        return False

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return None: the file was whole when it was read."""
        return None

    def get_data_info(self, idx: int) -> dict:
        """Return entry ``idx`` with its picture ``[H, W, 3]`` or volume ``[3, D, H, W]``."""
        info = super().get_data_info(idx)
        img = self.images[info['row']]
        if len(self.sides) == 3:
            img = np.repeat(img[None], 3, axis=0)
        elif img.ndim == 2:
            img = np.repeat(img[..., None], 3, axis=2)
        else:
            # In BGR, as mmcv reads files.
            img = img[..., ::-1].copy()
        return dict(info, img=img, img_shape=self.sides, ori_shape=self.sides)
