"""ModelNet40 and ShapeNet: collections of meshes, by their published layouts.

Reading text files or sampling meshes anew for every epoch would cost more than
training, so ModelNet40 is brought to one array, once, and kept.
"""

from pathlib import Path

import numpy as np

from lm4ve.errors import UserError, check, listing
from lm4ve.registry import DATASETS
from lm4ve.tasks.pointcloud.datasets.point_clouds import PointCloudDataset, seed_of
from lm4ve.tasks.pointcloud.datasets.readers import (
    cached_array,
    drop_nonfinite,
    read_points,
)
from lm4ve.tasks.pointcloud.transforms import farthest_points

_MODELNET40 = tuple(
    """
    airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser
    flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant
    radio range_hood sink sofa stairs stool table tent toilet tv_stand vase wardrobe xbox
    """.split()
)


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
        UserError: Neither layout is there, or a listed file is missing or
            damaged, or has fewer points than ``num_points``.
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
        check('dataset.split', split, choices=('train', 'test'))
        self.split, self.num_points, self.num_samples = split, num_points, num_samples
        self.cache_dir = cache_dir
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        root = Path(self.data_root)
        files = self._listed(root) or [
            (path, label)
            for label, kind in enumerate(_MODELNET40)
            for path in sorted((root / kind / self.split).glob('*.off'))
        ]
        if not files:
            layouts = f'modelnet40_{self.split}.txt nor <class>/{self.split}/*.off'
            raise UserError(f"dataset.data_root='{root}' has neither {layouts}.")
        key = [f'version 1, {self.num_points} of {self.num_samples}']
        key += [f'{p.relative_to(root)} {p.stat().st_size}' for p, _ in files]
        self._clouds = cached_array(
            self.cache_dir or root / 'lm4ve_cache',
            f'modelnet40_{self.split}_{self.num_points}',
            '\n'.join(key),
            lambda: self._build(files),
        )
        return [
            dict(path=str(p), row=i, gt_label=label)
            for i, (p, label) in enumerate(files)
        ]

    def _listed(self, root: Path) -> list[tuple[Path, int]]:
        names = root / f'modelnet40_{self.split}.txt'
        files = []
        for name in (
            names.read_text(encoding='utf-8').split() if names.is_file() else ()
        ):
            kind = name.rpartition('_')[0]
            check(f"A class in '{names}'", kind, choices=_MODELNET40)
            if '/' in name:
                raise UserError(f"'{names}' names a file outside of its class folder.")
            files.append((root / kind / f'{name}.txt', _MODELNET40.index(kind)))
        return files

    def _build(self, files: list) -> np.ndarray:
        clouds = np.empty((len(files), self.num_points, 3), dtype=np.float32)
        for cloud, (path, _) in zip(clouds, files, strict=True):
            points = read_points(path, self.num_samples, seed_of(path.name))
            points = drop_nonfinite(points, f"'{path}'", self.on_corrupt)
            check('dataset.num_points', self.num_points, most=len(points))
            cloud[:] = farthest_points(points, self.num_points)
        return clouds


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
        self.split, self.num_samples = split, num_samples
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        root = Path(self.data_root)
        arrays = sorted(root.glob('shapenet_pc/*-*.npy'))
        models = {_synset_and_model(p.stem): p for p in arrays} or _models_of_folders(
            root
        )
        if not models:
            layouts = 'shapenet_pc/<synset>-<model>.npy nor <synset>/<model>/'
            raise UserError(f"dataset.data_root='{root}' has neither {layouts}.")
        classes = tuple(sorted({synset for synset, _ in models}))
        classes = self._metainfo.setdefault('classes', classes)
        keys = sorted(models)
        for path in (
            root / f'{self.split}.txt',
            root / 'ShapeNet-55' / f'{self.split}.txt',
        ):
            if path.is_file():
                names = path.read_text(encoding='utf-8').replace('/', '-').split()
                keys = [_synset_and_model(name.removesuffix('.npy')) for name in names]
                break
        if missing := ['-'.join(key) for key in keys if key not in models]:
            raise UserError(
                f"'{root}' lacks models of '{self.split}': {listing(missing)}."
            )
        return [
            dict(path=str(models[key]), gt_label=classes.index(key[0]))
            for key in keys
            if key[0] in classes
        ]


def _synset_and_model(name: str) -> tuple[str, str]:
    synset, _, model = name.partition('-')
    return synset, model


def _models_of_folders(root: Path) -> dict[tuple[str, str], Path]:
    models = {}
    for folder in sorted(root.glob('[0-9]*/*/')):
        files = [
            p for p in folder.rglob('*') if p.suffix in ('.obj', '.ply', '.off', '.npy')
        ]
        if files:
            models[folder.parent.name, folder.name] = min(files)
    return models
