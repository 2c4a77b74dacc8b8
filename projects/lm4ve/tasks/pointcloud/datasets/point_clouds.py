"""Point-cloud classification data in the layouts in which it is published.

Every sample gives the pipeline ``points`` (float32 ``[N, 3]``, finite, at least
one) and ``gt_label``. Clouds of any size come out; ``lm4ve.SamplePoints`` brings them
to one size.
"""

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lm4ve.data.folder_listing import by_folder, list_files, warn_left_out
from lm4ve.data.integrity import IntegrityMixin
from lm4ve.data.labels import refuse_lookalikes
from lm4ve.errors import UserError, check
from lm4ve.files import require_given
from lm4ve.registry import DATASETS
from lm4ve.tasks.pointcloud.datasets.readers import (
    EXTENSIONS,
    coordinates,
    find_nonfinite,
    read_points,
)

#: Coordinates never compress better than this.
_COMPRESSION = 100
#: Points that a check draws on a mesh.
_FEW = 16


class PointCloudDataset(IntegrityMixin):
    """Base of these data sets. :mod:`lm4ve.data.integrity` treats damaged clouds.

    A cloud is damaged if its file cannot be read to its end, or if a point of it has NaN
    or infinite coordinates.

    Args:
        *args: Passed to :class:`mmengine.dataset.BaseDataset`.
        on_corrupt, verify: See :class:`lm4ve.data.integrity.IntegrityMixin`.
        **kwargs: Passed on as well.
    """

    noun = 'cloud'
    scan_decodes = True
    #: Points to draw on a mesh.
    num_samples = 10000
    #: ``[M, N, 3]``, where a data set holds its clouds in one array.
    _clouds: np.ndarray | None = None

    def __init__(self, *args, **kwargs) -> None:
        #: Name of each damaged cloud of the array -> its defect.
        self._row_defects: dict[str, str] = {}
        super().__init__(*args, **kwargs)

    def hold(self, clouds: np.ndarray, data_list: list[dict]) -> None:
        """Keep clouds in one array, and note those that are damaged.

        Args:
            clouds (np.ndarray): ``[M, N, 3]``.
            data_list (list[dict]): Entries with a ``row`` of it.
        """
        self._clouds = clouds
        for info in data_list:
            defect = self.find_defect_of_row(clouds[info['row']], info)
            if defect is not None:
                self._row_defects[self.path_of(info)] = defect

    def find_defect_of_row(self, points: np.ndarray, info: dict) -> str | None:
        """Return what is wrong with a cloud ``[N, 3]`` of the array, or None."""
        return find_nonfinite(points)

    def path_of(self, info: dict) -> str:
        """Return the file of an entry, with the number of a cloud in the array."""
        if 'row' in info:
            return f'{info["path"]} (cloud {info["row"]})'
        return info['path']

    def path_at(self, idx: int) -> str:
        """Return the file of sample ``idx``, without reading it."""
        return self.path_of(super().get_data_info(idx))

    def files_of_libraries(self, path: str) -> list[str]:
        """Return the file, which open3d opens by itself."""
        if self._clouds is not None:
            return []
        return [path]

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return what is wrong with a cloud, or None.

        Without ``decode`` nothing is read: reading the sample finds all of it.
        """
        if self._clouds is not None:
            return self._row_defects.get(path)
        if not decode:
            return None
        try:
            points = read_points(path, _FEW)
        except UserError as error:
            return f'is damaged ({error.__cause__ or error})'
        return find_nonfinite(points)

    def read(self, info: dict) -> np.ndarray:
        """Return the points of an entry of ``load_data_list``, ``[N, 3]``.

        An entry names the ``row`` of the array, or the ``path`` of a file.
        """
        if self._clouds is not None:
            return self._clouds[info['row']]
        # The path below data_root: a data set that was moved gives the same samples.
        seed = seed_of(os.path.relpath(info['path'], self.data_root or '.'))
        return read_points(info['path'], self.num_samples, seed)

    def get_data_info(self, idx: int) -> dict:
        """Return an entry with its ``points``.

        Raises:
            UserError: The cloud is damaged.
        """
        info = super().get_data_info(idx)
        points = np.array(self.read(info), dtype=np.float32)
        defect = find_nonfinite(points)
        if defect is not None:
            raise UserError(f"The cloud '{self.path_of(info)}' {defect}.")
        info['points'] = points
        return info


_SCANOBJECTNN = (
    'bag',
    'bin',
    'box',
    'cabinet',
    'chair',
    'desk',
    'display',
    'door',
    'shelf',
    'table',
    'bed',
    'pillow',
    'sink',
    'sofa',
    'toilet',
)


@DATASETS.register_module()
class ScanObjectNN(PointCloudDataset):
    """Real scans of 15 classes, 2048 points each (Uy et al., ICCV 2019).

    Layout: ``main_split/{training,test}_objectdataset.h5``, the same in
    ``main_split_nobg/``, and ``*_objectdataset_augmentedrot_scale75.h5``, each
    with ``data`` float ``[M, N, 3]`` and ``label`` int ``[M]``. The points are those of
    the file, not normalized, as in Point-BERT.

    Args:
        data_root (str): The folder with ``main_split``.
        split (str): 'train' or 'test'. There is no validation split.
        variant (str): 'objectbg' (with background, OBJ_BG), 'objectonly'
            (OBJ_ONLY) or 'hardest' (with background, moved, rotated and scaled:
            PB_T50_RS).
        **kwargs: Passed to :class:`PointCloudDataset`.

    Raises:
        UserError: A file is missing, damaged, or lacks a key.
    """

    METAINFO = dict(classes=_SCANOBJECTNN)
    #: Variant -> how the names of its folder and of its files end.
    VARIANTS = dict(
        objectbg=('', ''),
        objectonly=('_nobg', ''),
        hardest=('', '_augmentedrot_scale75'),
    )

    def __init__(
        self, data_root: str, split: str = 'train', variant: str = 'hardest', **kwargs
    ) -> None:
        check('dataset.split', split, choices=('train', 'test'))
        check('dataset.variant', variant, choices=tuple(self.VARIANTS))
        self.split = split
        self.variant = variant
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the split's file, keep its clouds, and return row and label of each."""
        folder_ending, file_ending = self.VARIANTS[self.variant]
        part = 'training' if self.split == 'train' else 'test'
        folder = Path(self.data_root, f'main_split{folder_ending}')
        path = folder / f'{part}_objectdataset{file_ending}.h5'
        clouds, labels = read_h5(path)
        data_list = []
        for row, label in enumerate(labels):
            data_list.append(dict(path=str(path), row=row, gt_label=int(label)))
        self.hold(clouds, data_list)
        return data_list


def read_h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read clouds float32 ``[M, N, 3]`` and labels int64 ``[M]`` of an .h5 file.

    Raises:
        UserError: It is missing, damaged, or has other keys or shapes.
        StorageError: Storage does not give it.
    """
    # Only this format needs it.
    import h5py

    # HDF5 does not always say why it failed.
    require_given(path)
    try:
        with h5py.File(path, 'r') as file:
            data = _stored(file, 'data')
            labels = _stored(file, 'label')
        labels = labels.reshape(-1).astype(np.int64)
        if data.ndim != 3 or len(data) != len(labels) or data.size == 0:
            raise ValueError(f'it has data {list(data.shape)} and {len(labels)} labels')
        return coordinates(data).astype(np.float32), labels
    except Exception as error:
        # The errors of h5py are of many kinds.
        raise UserError(
            f"'{path}' cannot be read: {error}. Fix: put ScanObjectNN's h5_files there, "
            'or set dataset.data_root.'
        ) from error


def _stored(file: Any, key: str) -> np.ndarray:
    """Read an array whose numbers all lie in the file itself.

    HDF5 can refer to other files in three ways, and reads zeros where nothing is
    stored.
    """
    import h5py

    # The type of the link comes first: looking at the target of an external one opens it.
    link = file.id.links.get_info(key.encode())
    if link.type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"'{key}' is a link, or holds no numbers")
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in 'fiu':
        raise ValueError(f"'{key}' is a link, or holds no numbers")
    stored_bytes = dataset.id.get_storage_size()
    claimed_bytes = dataset.size * dataset.dtype.itemsize
    is_partly_missing = claimed_bytes > _COMPRESSION * stored_bytes
    if dataset.external or dataset.is_virtual or is_partly_missing:
        raise ValueError(f"not all numbers of '{key}' lie in the file itself")
    return dataset[()]


@DATASETS.register_module()
class PointCloudFolder(PointCloudDataset):
    """Any folder of clouds and meshes: one folder a class.

    Layout: ``<data_root>[/<split>]/<class>/**/*.{ply,pcd,off,obj,stl,xyz,npy}``.
    Meshes are sampled when they are read, with a seed that depends on their path.

    Args:
        data_root (str): The folder.
        split (str): A folder below ``data_root``; '' where there is none.
        num_samples (int): Points drawn on a mesh.
        **kwargs: Passed to :class:`PointCloudDataset`. ``metainfo.classes`` names the
            class folders to use, in the order of their labels; default: all, sorted.

    Raises:
        UserError: There is no class folder, or one without clouds.
    """

    def __init__(
        self, data_root: str, split: str = 'train', num_samples: int = 2048, **kwargs
    ) -> None:
        self.split = split
        self.num_samples = num_samples
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return file and label of each cloud in the class folders."""
        root = Path(self.data_root) / self.split
        found = list_files(root, _is_cloud)
        clouds = by_folder(found)
        warn_left_out(found, root, type(self).__name__)
        classes = self._metainfo.setdefault('classes', tuple(clouds))
        check(f"The number of class folders of '{root}'", len(classes), least=1)
        refuse_lookalikes({name: 'a folder' for name in clouds}, str(root))
        entries = []
        for label, name in enumerate(classes):
            paths = sorted(root / path for path in clouds.get(name, ()))
            check(f"The number of clouds in '{root / name}'", len(paths), least=1)
            for path in paths:
                entries.append(dict(path=str(path), gt_label=label))
        return entries


def _is_cloud(path: str) -> bool:
    """Return whether a file counts as a cloud by its ending; texts may be anything."""
    suffix = Path(path).suffix.lower()
    return suffix in EXTENSIONS and suffix != '.txt'


def seed_of(name: str) -> int:
    """Return a seed that is the same in every process (``hash`` of a str is not)."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
