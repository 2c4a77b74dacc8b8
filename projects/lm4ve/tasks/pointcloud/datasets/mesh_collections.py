"""ModelNet40 and ShapeNet: collections of meshes, by their published layouts.

Reading text files or sampling meshes anew for every epoch would cost more than
training, so ModelNet40 is brought to one array, once, and kept.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from lm4ve.errors import UserError, check, listing
from lm4ve.files import is_file
from lm4ve.registry import DATASETS
from lm4ve.tasks.pointcloud.datasets.point_clouds import PointCloudDataset, seed_of
from lm4ve.tasks.pointcloud.datasets.readers import (
    cached_array,
    find_nonfinite,
    read_points,
)
from lm4ve.tasks.pointcloud.transforms import farthest_points

_MODELNET40 = (
    'airplane',
    'bathtub',
    'bed',
    'bench',
    'bookshelf',
    'bottle',
    'bowl',
    'car',
    'chair',
    'cone',
    'cup',
    'curtain',
    'desk',
    'door',
    'dresser',
    'flower_pot',
    'glass_box',
    'guitar',
    'keyboard',
    'lamp',
    'laptop',
    'mantel',
    'monitor',
    'night_stand',
    'person',
    'piano',
    'plant',
    'radio',
    'range_hood',
    'sink',
    'sofa',
    'stairs',
    'stool',
    'table',
    'tent',
    'toilet',
    'tv_stand',
    'vase',
    'wardrobe',
    'xbox',
)
#: Endings of the files of ShapeNetCore's models.
_MODEL_SUFFIXES = ('.obj', '.ply', '.off', '.npy')


@DATASETS.register_module()
class ModelNet40(PointCloudDataset):
    """CAD models of 40 classes, 9,843 and 2,468 (Wu et al., CVPR 2015).

    Two layouts, told apart by what is there:

    - the resampled text release (``modelnet40_normal_resampled``):
      ``modelnet40_{train,test}.txt`` with one name a line, and
      ``<class>/<name>.txt`` with 10,000 lines ``x,y,z,nx,ny,nz``;
    - the official meshes: ``<class>/{train,test}/<name>.off``, sampled uniformly
      by area.

    Either gives ``num_points`` farthest points of each shape, *in the order of
    farthest point sampling* (so ``SamplePoints(method='first')`` is farthest
    point sampling), kept in ``cache_dir``.

    Args:
        data_root (str): The folder of one of the layouts.
        split (str): 'train' or 'test'. There is no validation split.
        num_points (int): Points kept of each shape (8192 in Point-BERT).
        num_samples (int): Points drawn from a mesh before that.
        cache_dir (str, optional): Default: ``<data_root>/lm4ve_cache``. The file
            for 8192 points and the train split has 0.97 GB; making it takes
            about 0.3 s a shape on one core.
        **kwargs: Passed to :class:`PointCloudDataset`.

    Raises:
        UserError: Neither layout is there, or a shape has fewer points than
            ``num_points``.
    """

    METAINFO = dict(classes=_MODELNET40)

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        num_points: int = 8192,
        num_samples: int = 10000,
        cache_dir: str | None = None,
        **kwargs,
    ) -> None:
        # MMEngine's constructor loads the data list, which needs these.
        check('dataset.split', split, choices=('train', 'test'))
        self.split = split
        #: Points kept of each shape: the farthest of those that were read.
        self.num_points = num_points
        #: Points drawn on the surface of each mesh, of which the former are kept.
        self.num_samples = num_samples
        self.cache_dir = cache_dir
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return file, row and label of each shape; read all clouds, or the cache of them."""
        root = Path(self.data_root)
        files = self._listed(root) or self._meshes(root)
        if not files:
            layouts = f'modelnet40_{self.split}.txt nor <class>/{self.split}/*.off'
            raise UserError(f"dataset.data_root='{root}' has neither {layouts}.")
        # The clouds depend on these, and on the files' names and sizes.
        key = [f'version 1, {self.num_points} of {self.num_samples}']
        for path, _ in files:
            key.append(f'{path.relative_to(root)} {_size_of(path)}')
        clouds = cached_array(
            self.cache_dir or root / 'lm4ve_cache',
            f'modelnet40_{self.split}_{self.num_points}',
            '\n'.join(key),
            build=lambda: self._build(files),
        )
        data_list = []
        for row, (path, label) in enumerate(files):
            data_list.append(dict(path=str(path), row=row, gt_label=label))
        self.hold(clouds, data_list)
        return data_list

    def find_defect_of_row(self, points: np.ndarray, info: dict) -> str | None:
        """Return what is wrong with the file of a cloud that could not be read, or None.

        Raises:
            UserError: The file was mended, and has the size that it had before.
        """
        # Such a cloud is NaN throughout.
        if np.isfinite(points[0]).all():
            return None
        try:
            self._read_shape(Path(info['path']))
        except UserError as error:
            return f'is damaged ({error.__cause__ or error})'
        folder = self.cache_dir or Path(self.data_root, 'lm4ve_cache')
        raise UserError(
            f"'{info['path']}' was damaged when the files in '{folder}' were made. "
            'Fix: remove them.'
        )

    def _listed(self, root: Path) -> list[tuple[Path, int]]:
        """Return the files of the text release with their labels; empty without its list."""
        list_file = root / f'modelnet40_{self.split}.txt'
        if not list_file.is_file():
            return []
        files = []
        for name in list_file.read_text(encoding='utf-8').split():
            class_name = name.rpartition('_')[0]
            check(f"A class in '{list_file}'", class_name, choices=_MODELNET40)
            if '/' in name:
                raise UserError(
                    f"'{list_file}' names a file outside of its class folder."
                )
            path = root / class_name / f'{name}.txt'
            files.append((path, _MODELNET40.index(class_name)))
        return files

    def _meshes(self, root: Path) -> list[tuple[Path, int]]:
        """Return the official meshes with their labels."""
        files = []
        for label, class_name in enumerate(_MODELNET40):
            folder = root / class_name / self.split
            for path in sorted(folder.glob('*.off')):
                files.append((path, label))
        return files

    def _build(self, files: list[tuple[Path, int]]) -> np.ndarray:
        """Read all shapes, float32 ``[M, num_points, 3]``, farthest points first.

        The row of a damaged one is NaN.
        """
        clouds = np.empty((len(files), self.num_points, 3), dtype=np.float32)
        for cloud, (path, _) in zip(clouds, files, strict=True):
            try:
                points = self._read_shape(path)
            except UserError:
                # The scan and the sample's reading find it.
                cloud[:] = np.nan
                continue
            check('dataset.num_points', self.num_points, most=len(points))
            cloud[:] = farthest_points(points, self.num_points)
        return clouds

    def _read_shape(self, path: Path) -> np.ndarray:
        """Read a shape, float32 ``[N, 3]``.

        Raises:
            UserError: It is damaged.
        """
        points = read_points(path, self.num_samples, seed_of(path.name))
        defect = find_nonfinite(points)
        if defect is not None:
            raise UserError(f"'{path}' {defect}.")
        return points


@DATASETS.register_module()
class ShapeNet(PointCloudDataset):
    """Folders in ShapeNet's style: classes are WordNet's synset ids.

    Two layouts, told apart by what is there:

    - ShapeNet55 of Point-BERT: ``shapenet_pc/<synset>-<model>.npy``;
    - ShapeNetCore: ``<synset>/<model>/**/*.{obj,ply,off,npy}``, of several files
      in a model's folder the first by name (``models/model_normalized.obj``).

    Which models belong to a split is in ``<split>.txt`` (or
    ``ShapeNet-55/<split>.txt``), one ``<synset>-<model>[.npy]`` or
    ``<synset>/<model>`` a line; without such a file all models are taken.

    Args:
        data_root (str): The folder.
        split (str): 'train', 'val' or 'test'.
        num_samples (int): Points drawn from a mesh.
        **kwargs: Passed to :class:`PointCloudDataset`. ``metainfo.classes`` is set to
            the synset ids found, sorted: over all models and not over a split's,
            so that labels agree between splits.

    Raises:
        UserError: No layout is there, or a listed model is missing.
    """

    def __init__(
        self, data_root: str, split: str = 'train', num_samples: int = 8192, **kwargs
    ) -> None:
        check('dataset.split', split, choices=('train', 'val', 'test'))
        self.split = split
        self.num_samples = num_samples
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return file and label of each model of the split; labels count the sorted synsets."""
        root = Path(self.data_root)
        models = _models_of_arrays(root) or _models_of_folders(root)
        if not models:
            layouts = 'shapenet_pc/<synset>-<model>.npy nor <synset>/<model>/'
            raise UserError(f"dataset.data_root='{root}' has neither {layouts}.")
        synsets = {model.synset for model in models}
        classes = self._metainfo.setdefault('classes', tuple(sorted(synsets)))
        listed = self._listed(root)
        if listed is None:
            listed = sorted(models)
        missing = []
        for model in listed:
            if model not in models:
                missing.append(f'{model.synset}-{model.name}')
        if missing:
            raise UserError(
                f"'{root}' lacks models of '{self.split}': {listing(missing)}."
            )
        data_list = []
        for model in listed:
            if model.synset in classes:
                label = classes.index(model.synset)
                data_list.append(dict(path=str(models[model]), gt_label=label))
        return data_list

    def _listed(self, root: Path) -> list['_Model'] | None:
        """Return the models of the split's list, or None without one."""
        for folder in (root, root / 'ShapeNet-55'):
            list_file = folder / f'{self.split}.txt'
            if list_file.is_file():
                names = list_file.read_text(encoding='utf-8').replace('/', '-').split()
                return [_parse_model(name.removesuffix('.npy')) for name in names]
        return None


def _size_of(path: Path) -> int:
    """Return a file's size in bytes; 0 of a file that is not there."""
    if not is_file(path):
        return 0
    return path.stat().st_size


class _Model(NamedTuple):
    """A model of ShapeNet: its class, a synset id of WordNet, and its name."""

    synset: str
    name: str


def _parse_model(text: str) -> _Model:
    """Parse '<synset>-<model>'."""
    synset, _, name = text.partition('-')
    return _Model(synset, name)


def _models_of_arrays(root: Path) -> dict[_Model, Path]:
    """Return the models of ShapeNet55, each with its file."""
    paths = sorted(root.glob('shapenet_pc/*-*.npy'))
    return {_parse_model(path.stem): path for path in paths}


def _models_of_folders(root: Path) -> dict[_Model, Path]:
    """Return the models of ShapeNetCore, each with the first of its files."""
    models = {}
    for folder in sorted(root.glob('[0-9]*/*/')):
        files = [path for path in folder.rglob('*') if path.suffix in _MODEL_SUFFIXES]
        if files:
            models[_Model(folder.parent.name, folder.name)] = min(files)
    return models
