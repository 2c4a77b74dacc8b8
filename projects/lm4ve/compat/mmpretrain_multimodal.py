"""mmpretrain's multimodal models do not import with current ``transformers``.

Broken in mmpretrain 1.2.0 (not reported upstream) with transformers >= 4.48: wherever
pycocotools is installed too, as mmdetection installs it, BLIP takes functions from
``transformers.modeling_utils`` that are no longer there, goes on without them, and ends
``import mmpretrain.models`` in "TypeError: NoneType takes no arguments". mmpretrain's own
switch for machines without pycocotools leaves those models out. May go once BLIP imports.
"""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from lm4ve.compat.mmaction_multimodal import lacks_names


def is_needed(dependency: ModuleType) -> bool:
    """Return whether BLIP imports names that this ``transformers`` has not, read as text."""
    models = Path(dependency.__file__).parents[1] / 'models/multimodal'
    return lacks_names(models / 'blip/language_model.py')


def repair(dependency: ModuleType) -> None:
    """Switch the multimodal models and their data sets off if they cannot be imported.

    Args:
        dependency (ModuleType): ``mmpretrain.utils.dependency``, whose switch models and
            data sets read.
    """
    if getattr(dependency, 'WITH_MULTIMODAL', False) and is_needed(dependency):
        dependency.WITH_MULTIMODAL = False
        dependency.register_multimodal_placeholder = _register_refusals


def _register_refusals(names: Iterable[str], registry) -> None:
    """Register what says why a type is not there; mmpretrain's asks for what is installed."""

    def refusal(name: str):
        def refuse(*args, **kwargs) -> None:
            raise ImportError(
                f'{name} of mmpretrain does not import with the installed transformers. Fix: an '
                'environment of its own with transformers<4.48, without lm4ve.'
            )

        return refuse

    for name in names:
        registry.register_module(name=name, module=refusal(name))
