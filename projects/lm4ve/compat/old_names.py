"""Import paths from before the redesign, for configs and scripts that name them.

Every saved config of a motion training, for example, asks for ``lm4ve.motion`` and
``lm4ve.demo.traffic_dataset``. A finder at the end of ``sys.meta_path`` answers for
such a path with the module that has taken its place, and says its name once.
"""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any

_OURS = 'lm4ve.'

#: Old package -> the packages that offer its names now. A module of an old package
#: has kept its name in one of them or in their :data:`FOLDERS`, unless
#: :data:`MODULES` says otherwise.
PACKAGES: dict[str, tuple[str, ...]] = {
    'analysis': ('activations', 'iou'),
    'analysis.ablation': ('ablation',),
    'demo': ('tasks.image', 'tasks.pointcloud'),
    'hosts': ('compat',),
    'image': ('tasks.image',),
    'motion': ('tasks.motion',),
    'pointcloud': ('tasks.pointcloud',),
    'video': ('tasks.video',),
}
FOLDERS = ('', '.datasets', '.models', '.demo')

#: Old module -> new module. ``converters.rename`` is not among them: importing it
#: would hide the function of that name, which ``lm4ve.converters`` still offers.
MODULES: dict[str, str] = {
    'analysis.activations': 'activations.measures',
    'analysis.batches': 'tasks.analysis',
    'analysis.hook': 'activations.visualizer_hook',
    'analysis.iou_figure': 'iou.figure',
    'analysis.iou_report': 'iou.report',
    'analysis.layout': 'tasks.analysis',
    'analysis.panels': 'tasks.pictures',
    'blocks.checkpoint': 'blocks.language_model',
    'blocks.controls': 'blocks.mlp_block',
    'blocks.files': 'llm.sources',
    'blocks.fingerprint': 'llm.fingerprint',
    'blocks.meta_layout': 'llm.meta_layout',
    'blocks.pieces': 'blocks.frozen_in_pieces',
    'blocks.readers': 'llm.readers',
    'blocks.record': 'blocks.provenance',
    'converters.pointbert': 'tasks.pointcloud.converters',
    'converters.videomae': 'tasks.video.converters',
    'converters.vit': 'tasks.image.converters',
    'demo.moving_digits': 'tasks.video.demo.moving_digits',
    'demo.traffic': 'tasks.motion.demo.traffic',
    'demo.traffic_dataset': 'tasks.motion.demo.traffic_dataset',
    'demo.traffic_files': 'tasks.motion.demo.traffic_files',
    'demo.traffic_roads': 'tasks.motion.demo.traffic_roads',
    'engine.checkpoints': 'engine.checkpoint_hooks',
    'engine.cli': 'engine.command_line',
    'hosts.mmaction': 'compat',
    'hosts.mmaction_models': 'tasks.video.models',
    'hosts.mmaction_vit': 'compat.mmaction_vit_norm',
    'hosts.mmpretrain': 'tasks.image.models',
    'image.checked': 'tasks.image.datasets.folders',
    'image.defects': 'tasks.image_files',
    'image.variants': 'tasks.image.datasets.imagenet_variants',
    'motion.datasets': 'tasks.motion.datasets.motion_dataset',
    'motion.preprocess': 'tasks.motion.datasets.preprocessing',
    'necks.insert': 'necks.llm_block_insert',
    'pointcloud.datasets': 'tasks.pointcloud.datasets.point_clouds',
    'pointcloud.evaluation': 'tasks.pointcloud.metrics',
    'pointcloud.pictures': 'tasks.pointcloud.visualization',
    'pointcloud.shapes': 'tasks.pointcloud.datasets.mesh_collections',
    'tasks.image.corruption': 'tasks.image_files',
    'video.annotate': 'tasks.video.visualization',
    'video.checked': 'tasks.video.datasets.video_lists',
    'video.defects': 'tasks.video.corruption',
    'video.demo': 'tasks.video.demo.moving_digits_dataset',
    'video.lists': 'tasks.video.datasets.list_conversion',
}


def new_names(old: str) -> tuple[str, ...]:
    """Return the modules, below ``lm4ve``, that an old one has become; maybe none."""
    if old in MODULES:
        return (MODULES[old],)
    if old in PACKAGES:
        return PACKAGES[old]
    package, _, name = old.rpartition('.')
    names = (f'{new}{folder}.{name}' for new in PACKAGES.get(package, ()) for folder in FOLDERS)
    return tuple(new for new in names if _exists(_OURS + new))[:1]


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the task has no such folder
        return False


class MovedPackage(ModuleType):
    """An old package: empty, and asks its successors for every name."""

    # Nothing lies below it, so that only the finder of this file is asked.
    __path__: list[str] = []

    @property
    def _successors(self) -> list[ModuleType]:
        old = self.__name__.removeprefix(_OURS)
        return [importlib.import_module(_OURS + new) for new in PACKAGES[old]]

    @property
    def __all__(self) -> list[str]:
        return sorted({n for m in self._successors for n in getattr(m, '__all__', ())})

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        for successor in self._successors:
            found = getattr(successor, name, None)
            # `motion.datasets`, a module then, is not the package of that name now.
            if found is not None and not isinstance(found, ModuleType):
                return found
        try:
            return importlib.import_module(f'{self.__name__}.{name}')
        except ModuleNotFoundError as e:
            if e.name and not e.name.startswith(_OURS):
                raise  # a package of the task is missing
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'") from e

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing `motion.preprocess` would hide the function of that name.
        if not isinstance(value, ModuleType):
            super().__setattr__(name, value)


class OldNames(MetaPathFinder, Loader):
    """Finds old modules and loads what they have become."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Return a spec if the name is an old one; asked when nothing else has it."""
        old = fullname.removeprefix(_OURS)
        if old == fullname or not new_names(old):
            return None
        return spec_from_loader(fullname, self, is_package=old in PACKAGES)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return an empty package, or None for a module."""
        is_package = spec.submodule_search_locations is not None
        return MovedPackage(spec.name) if is_package else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the new module into the place of the old one, and warn."""
        name = module.__name__
        new = [_OURS + n for n in new_names(name.removeprefix(_OURS))]
        if not isinstance(module, MovedPackage):
            # The import system takes what lies here when this function returns.
            sys.modules[name] = importlib.import_module(new[0])
        warnings.warn(
            f"'{name}' is now {' and '.join(new)}. The old path still works; a "
            'later release will remove it.',
            DeprecationWarning,
            stacklevel=2,
        )


def install() -> None:
    """Append the finder, once: paths that exist are found before it is asked."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.append(OldNames())
