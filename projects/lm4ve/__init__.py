"""Frozen transformer blocks of language models as visual encoder layers.

``lm4ve.wrap(model, after=..., block=...)`` puts a block into any model; configs of
MMEngine, mmpretrain and mmaction2 name it by ``type``.

Importing this package is cheap and imports no host: it makes the scope ``lm4ve`` and
its configs known and waits. Blocks and necks register with MMEngine when a model
library is imported, everything else when a config first names it. Nothing changes for
models without our classes: other libraries are repaired once there is one
(:mod:`lm4ve.compat`).
"""

import functools
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import wrapt

from lm4ve import compat, registry, runner, tasks  # noqa: F401
from lm4ve.version import __version__  # noqa: F401
from lm4ve.zoo import MIM_FOLDER


def _is_named_by_a_config() -> bool:
    """Return whether ``custom_imports`` of a config is what imports this package."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == 'import_modules_from_strings':
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


# Configs from before there was `lm4ve.openmmlab` name the package itself. The repairs have
# to act before the next name in `custom_imports` imports a host.
if _is_named_by_a_config():
    compat.activate()

#: Module -> the classes that it registers and that serve all tasks.
_REGISTERS = {
    'lm4ve.runner.checkpoint_hooks': (
        'AtomicCheckpointHook',
        'PlainCheckpointHook',
        'WholeCheckpointHook',
    ),
    'lm4ve.runner.autocast': ('AutocastOptimWrapper',),
    'lm4ve.runner.ending.hook': ('EndingHook',),
    'lm4ve.runner.training_loss': ('TrainingLossHook',),
    'lm4ve.necks.usage': ('BlockInUseHook', 'NeckProgressHook'),
    'lm4ve.blocks.controls': ('AttentionBlock',),
    'lm4ve.necks.initializers': ('TorchDefault',),
    'lm4ve.runner.ema': ('KeptEMAHook',),
    'lm4ve.runner.loops': ('EpochLoop', 'IterLoop'),
    'lm4ve.analysis.visualizer_hook': ('ActivationVisHook',),
    'lm4ve.study.trainings.samples': ('SampleLabels',),
}
for _module, _names in _REGISTERS.items():
    registry.PROVIDERS.update(dict.fromkeys(_names, (_module, '')))


#: Module of another library -> our module that is imported right after it, since it
#: registers classes there.
_BESIDE = {
    'mmengine.model': 'lm4ve.necks',  # nobody builds a model without having imported this
    'mmaction.models': 'lm4ve.tasks.video.models.neck',  # a neck of mmaction2's own protocol
    'peft': 'lm4ve.blocks.peft_configs',  # its LoRA on frozen projections
}


def _import_beside(ours: str, library: ModuleType) -> None:
    """Import a module of ours, right after one of a library.

    Args:
        ours (str): Our module's name.
        library (ModuleType): The library's module; ``wrapt`` passes it, and it is not
            used.
    """
    importlib.import_module(ours)


for _library, _ours in _BESIDE.items():
    wrapt.register_post_import_hook(functools.partial(_import_beside, _ours), _library)


def _offer_image_models(model: ModuleType) -> None:
    """Add the image models to those that mmpretrain's ``get_model`` and ``list_models`` find.

    Args:
        model (ModuleType): ``mmpretrain.apis.model``, just imported.
    """
    model.ModelHub.register_model_index(
        MIM_FOLDER / 'configs/lm4ve/metafile.yml', config_prefix=MIM_FOLDER
    )


wrapt.register_post_import_hook(_offer_image_models, 'mmpretrain.apis.model')

#: Functions that this package offers -> the modules that define them.
_FUNCTIONS = {
    'wrap': 'lm4ve.necks.wrapping',
    'save_pretrained': 'lm4ve.necks.pretrained',
    'from_pretrained': 'lm4ve.necks.pretrained',
    'fuse': 'lm4ve.necks.fusing',
    'check': 'lm4ve.necks.usage',
}
#: Names that need no optional package.
__all__ = [
    '__version__',
    'apis',
    'blocks',
    'check',
    'errors',
    'from_pretrained',
    'fuse',
    'necks',
    'registry',
    'save_pretrained',
    'tasks',
    'wrap',
]
#: Imported when they are first used, and by ``import lm4ve.study`` as any other.
_SUBPACKAGES = ('analysis', 'cost', 'llm', 'release', 'runner', 'study', 'zoo')

if TYPE_CHECKING:
    from lm4ve import analysis as analysis
    from lm4ve import apis as apis
    from lm4ve import blocks as blocks
    from lm4ve import cost as cost
    from lm4ve import errors as errors
    from lm4ve import llm as llm
    from lm4ve import necks as necks
    from lm4ve import release as release
    from lm4ve import runner as runner
    from lm4ve import study as study
    from lm4ve import zoo as zoo
    from lm4ve.necks.fusing import fuse as fuse
    from lm4ve.necks.pretrained import from_pretrained as from_pretrained
    from lm4ve.necks.pretrained import save_pretrained as save_pretrained
    from lm4ve.necks.usage import check as check
    from lm4ve.necks.wrapping import wrap as wrap
else:
    # At run time, functions and subpackages are imported when they are first used.

    def __getattr__(name: str):
        """Import the function or the subpackage that an attribute of ``lm4ve`` names.

        Python calls it for names that the module does not have.

        Raises:
            AttributeError: There is neither.
            ModuleNotFoundError: The subpackage needs a package that is not installed.
        """
        if name in _FUNCTIONS:
            module = importlib.import_module(_FUNCTIONS[name])
            return getattr(module, name)
        module_name = f'lm4ve.{name}'
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as e:
            is_other_package = e.name != module_name
            if is_other_package:
                raise
            raise AttributeError(f"module 'lm4ve' has no attribute '{name}'") from None

    def __dir__() -> list[str]:
        """List the public names, also those that are not imported yet."""
        return sorted([*__all__, *_SUBPACKAGES])
