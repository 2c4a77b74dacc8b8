"""Point-cloud classification data in the layouts in which it is published.

Every sample gives the pipeline ``points`` (float32 ``[N, 3]``, finite, at least
one) and ``gt_label``. Clouds of any size come out; ``lm4ve.SamplePoints`` brings them
to one size.
"""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset

from lm4ve.errors import UserError
from lm4ve.registry import DATASETS
from lm4ve.tasks.base.integrity import check_policy
from lm4ve.tasks.pointcloud.datasets.readers import EXTENSIONS, drop_nonfinite, read_points

#: Coordinates never compress better than this.
_COMPRESSION = 100


class PointCloudDataset(BaseDataset):
    """Base of these data sets: checks each cloud before the pipeline.

    Args:
        on_corrupt (str): What becomes of points with NaN or infinite coordinates:
            'skip' leaves them out, 'refuse' raises.
        **kwargs: Passed to :class:`mmengine.dataset.BaseDataset`.
    """

    #: Points to draw from a file that holds a mesh.
    num_samples = 10000
    #: ``[M, N, 3]``, where a data set holds its clouds in one array.
    _clouds: np.ndarray

    def __init__(self, *args, on_corrupt: str = 'skip', **kwargs) -> None:
        self.on_corrupt = check_policy(on_corrupt)
        super().__init__(*args, **kwargs)

    def read(self, info: dict) -> np.ndarray:
        """Return the points of an entry of ``load_data_list``, ``[N, 3]``.

        An entry names the ``row`` of the array, or the ``path`` of a file.
        """
        if 'row' in info:
            return self._clouds[info['row']]
        # Below data_root: a data set that was moved gives the same samples.
        seed = seed_of(os.path.relpath(info['path'], self.data_root or '.'))
        return read_points(info['path'], self.num_samples, seed)

    def get_data_info(self, idx: int) -> dict:
        """Return an entry with its ``points``."""
        info = super().get_data_info(idx)
        origin = f"'{info['path']}'" + (f' (cloud {info["row"]})' if 'row' in info else '')
        points = np.array(self.read(info), dtype=np.float32)
        info['points'] = drop_nonfinite(points, origin, self.on_corrupt)
        return info

    def _root(self) -> Path:
        root = Path(self.data_root)
        if not root.is_dir():
            raise UserError(
                f"dataset.data_root='{root}' is no folder. Fix: put or link the "
                'data there (docs/guides/point_clouds.md has its layout), or set '
                'data_root of the dataloaders.'
            )
        return root


def check_split(split: str, allowed: Sequence[str] = ('train', 'test')) -> str:
    """Return the split, or refuse it."""
    if split not in allowed:
        raise UserError(f"dataset.split='{split}' must be one of {', '.join(allowed)}.")
    return split


@DATASETS.register_module()
class ScanObjectNN(PointCloudDataset):
    """Real scans of 15 classes, 2048 points each (Uy et al., ICCV 2019).

    Layout: ``main_split/{training,test}_objectdataset.h5``, the same in
    ``main_split_nobg/``, and ``*_objectdataset_augmentedrot_scale75.h5``, each
    with ``data`` float ``[M, N, 3]`` and ``label`` int ``[M]``. Points are given
    as they are, as Point-BERT has it: not normalized.

    Args:
        data_root (str): The folder with ``main_split``.
        split (str): 'train' or 'test'. There is no validation split.
        variant (str): 'objectbg' (with background, OBJ_BG), 'objectonly'
            (OBJ_ONLY) or 'hardest' (with background, moved, rotated and scaled:
            PB_T50_RS).
        folder (str): 'main_split', or 'split1' to 'split4' of the release.
        **kwargs: Passed to :class:`PointCloudDataset`.

    Raises:
        UserError: A file is missing, damaged, or lacks a key; labels are out of
            range.
    """

    METAINFO = dict(
        classes=tuple(
            'bag bin box cabinet chair desk display door shelf table bed pillow sink sofa '
            'toilet'.split()
        )
    )
    VARIANTS = dict(
        objectbg=('', ''), objectonly=('_nobg', ''), hardest=('', '_augmentedrot_scale75')
    )

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        variant: str = 'hardest',
        folder: str = 'main_split',
        **kwargs,
    ) -> None:
        self.split = check_split(split)
        if variant not in self.VARIANTS:
            raise UserError(
                f"dataset.variant='{variant}' must be one of {', '.join(self.VARIANTS)}."
            )
        self.variant, self.folder = variant, folder
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        root = self._root()
        nobg, ending = self.VARIANTS[self.variant]
        begin = dict(train='training', test='test')[self.split]
        path = root / f'{self.folder}{nobg}' / f'{begin}_objectdataset{ending}.h5'
        self._clouds, labels = read_h5(path)
        count = len(self.metainfo['classes'])
        if labels.min() < 0 or labels.max() >= count:
            raise UserError(
                f"'{path}' has labels {labels.min()} to {labels.max()}, "
                f'expected 0 to {count - 1}. Fix: fetch the file again.'
            )
        return [dict(path=str(path), row=i, gt_label=int(label)) for i, label in enumerate(labels)]


def read_h5(path: Path) -> tuple:
    """Read ``data`` ``[M, N, 3]`` and ``label`` ``[M]`` of an h5 file.

    Raises:
        UserError: It is missing, damaged, or has other keys or shapes.
    """
    import h5py  # only this format needs it

    if not path.is_file():
        raise UserError(
            f"'{path}' does not exist. Fix: put or link "
            "ScanObjectNN's h5_files there, or set data_root."
        )
    try:
        with h5py.File(path, 'r') as f:
            missing = [k for k in ('data', 'label') if not f.id.links.exists(k.encode())]
            if missing:
                raise UserError(
                    f"'{path}' has the keys {', '.join(f) or '(none)'}, "
                    f"expected data and label. Fix: fetch ScanObjectNN's "
                    'h5_files; other releases are not read.'
                )
            data = np.asarray(_stored(f, 'data'), dtype=np.float32)
            labels = np.asarray(_stored(f, 'label')).reshape(-1).astype(np.int64)
    except UserError:
        raise
    except Exception as e:  # h5py's are of many kinds
        raise UserError(
            f"'{path}' ({path.stat().st_size:,} bytes) is no whole "
            f'h5 file ({type(e).__name__}). Fix: fetch it again.'
        ) from e
    if data.ndim != 3 or data.shape[-1] < 3 or len(data) != len(labels) or (data.size == 0):
        raise UserError(
            f"'{path}' has data {list(data.shape)} and {len(labels)} labels, "
            'expected data [M, N, 3] and M labels, M and N above 0.'
        )
    return data[..., :3], labels


def _stored(file, key: str):
    """Return a data set whose numbers lie in the file itself, all of them.

    HDF5 can take them from other files, in three ways, and gives zeros where nothing is.

    Raises:
        UserError: They do not.
    """
    if wrong := _why_not(file, key):
        raise UserError(f"'{file.filename}' {wrong}. Fix: fetch ScanObjectNN's h5_files again.")
    return file[key]


def _why_not(file, key: str) -> str | None:
    import h5py

    # Looking at what an external link leads to would open it.
    if file.id.links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
        return f"has a link as '{key}', and only numbers in the file itself are read"
    found = file[key]
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in 'fiu':
        return f"has no numbers as '{key}'"
    if found.external or found.is_virtual:
        return f"takes '{key}' from another file, and only numbers in the file itself are read"
    stored, claimed = found.id.get_storage_size(), found.size * found.dtype.itemsize
    if claimed > _COMPRESSION * stored:
        return (
            f"has {stored:,} bytes for '{key}' of the shape {list(found.shape)}, which needs "
            f'{claimed:,}: it is cut or made up'
        )
    return None


@DATASETS.register_module()
class PointCloudFolder(PointCloudDataset):
    """Any folder of clouds and meshes: one folder a class.

    Layout: ``<data_root>[/<split>]/<class>/**/*.{ply,pcd,off,obj,stl,xyz,npy}``.
    Meshes are sampled when they are read, with a seed that their path fixes.

    Args:
        data_root (str): The folder.
        split (str): A folder below ``data_root``; '' where there is none.
        num_samples (int): Points drawn from a mesh.
        extensions (Sequence[str]): Which files count.
        metainfo (dict, optional): ``classes`` names the class folders to use,
            in the order of their labels; default: all, sorted.
        **kwargs: Passed to :class:`PointCloudDataset`.

    Raises:
        UserError: There is no class folder, or one without clouds.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        num_samples: int = 2048,
        extensions: Sequence[str] = tuple(e for e in EXTENSIONS if e != '.txt'),
        metainfo: dict | None = None,
        **kwargs,
    ) -> None:
        self.split, self.num_samples = split, num_samples
        self.extensions = tuple(extensions)
        super().__init__(data_root=data_root, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        root = self._root() / self.split
        found = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        classes = self.metainfo.get('classes') or tuple(found)
        missing = [c for c in classes if c not in found]
        if not classes or missing:
            raise UserError(
                f"'{root}' has the class folders {', '.join(found) or '(none)'}"
                f', expected {", ".join(missing) or "one a class"}. Fix: check '
                'dataset.data_root, split and metainfo.classes.'
            )
        self._metainfo['classes'] = classes
        entries, empty = [], []
        for label, name in enumerate(classes):
            files = (p for p in (root / name).rglob('*') if p.is_file())
            paths = sorted(p for p in files if p.suffix.lower() in self.extensions)
            if not paths:
                empty.append(name)
            entries += [dict(path=str(p), gt_label=label) for p in paths]
        if empty:
            raise UserError(
                f"Class folder(s) of '{root}' without a file ending in "
                f'{", ".join(self.extensions)}: {", ".join(empty)}.'
            )
        return entries


def seed_of(name: str) -> int:
    """Return a seed that is the same in every process (``hash`` of a str is not)."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
