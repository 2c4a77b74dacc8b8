"""MMEngine executes pickles, which a checkpoint may be."""

from types import ModuleType
from typing import Any

from lm4ve.llm.torch_files import load, own_safe_globals


class _TorchWithSafeLoad(ModuleType):
    """``torch`` as a module of MMEngine sees it: its ``load`` runs nothing of a file."""

    def __init__(self, torch: ModuleType) -> None:
        super().__init__('torch')
        self._torch = torch

    def load(self, *args: Any, **kwargs: Any) -> Any:
        return load(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


def load_without_code(checkpoint: Any) -> None:
    """MMEngine's later versions execute pickles.

    True of MMEngine's main branch (0.11.0rc0) and of ``onedl-mmengine`` 0.10.12 (no
    upstream issue): what ``weights_only=True`` refuses is loaded with
    ``weights_only=False``, and the true ``getattr`` is allowed for the former. So their
    ``torch.load`` is ours, whatever they ask it for. MMEngine 0.10.7 leaves torch's
    default to an environment variable. May go once MMEngine always passes
    ``weights_only=True`` and can be given further safe objects.
    """
    checkpoint.torch = _TorchWithSafeLoad(checkpoint.torch)


def download_without_code(checkpoint: Any) -> None:
    """MMEngine executes pickles that it downloads.

    True of MMEngine 0.10.7 (no upstream issue): ``http://``, ``torchvision://`` and
    ``open-mmlab://`` checkpoints are loaded by ``torch.hub``'s function without a
    check. May go with :func:`load_without_code`.
    """
    download = checkpoint.load_url

    def load_url(*args: Any, **kwargs: Any) -> Any:
        kwargs['weights_only'] = True
        with own_safe_globals():
            return download(*args, **kwargs)

    checkpoint.load_url = load_url
