"""Keep MMEngine from executing code when it loads a checkpoint, which may be any pickle."""

from types import ModuleType
from typing import Any

from lm4ve.llm.torch_files import load, own_safe_globals


class _TorchWithSafeLoad(ModuleType):
    """The module ``torch`` with another ``load``: ours, which executes no code of a file.

    Every other name is torch's.
    """

    def __init__(self, torch: ModuleType) -> None:
        super().__init__('torch')
        self._torch = torch

    def load(self, *args: Any, **kwargs: Any) -> Any:
        return load(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


def load_without_code(checkpoint: Any) -> None:
    """Let MMEngine's module for checkpoints load by our ``load``, whatever arguments it passes.

    Broken in MMEngine's main branch (0.11.0rc0) and in ``onedl-mmengine`` 0.10.12 (no
    upstream issue): a file that ``weights_only=True`` refuses is loaded with
    ``weights_only=False``, which executes its code, and Python's ``getattr`` is allowed
    even with ``weights_only=True``. MMEngine 0.10.7 passes no ``weights_only``, so that
    an environment variable can switch torch's check off. May go once MMEngine always
    passes ``weights_only=True`` and accepts further safe objects.

    Args:
        checkpoint (ModuleType): ``mmengine.runner.checkpoint``.
    """
    checkpoint.torch = _TorchWithSafeLoad(checkpoint.torch)


def download_without_code(checkpoint: Any) -> None:
    """Let MMEngine load downloaded checkpoints with ``weights_only=True``.

    Broken in MMEngine 0.10.7 (no upstream issue): ``http://``, ``torchvision://`` and
    ``open-mmlab://`` checkpoints are loaded by ``torch.hub.load_state_dict_from_url``
    without this check, so that their code is executed. May go with
    :func:`load_without_code`.

    Args:
        checkpoint (ModuleType): ``mmengine.runner.checkpoint``.
    """
    load_url_by_torch = checkpoint.load_url

    def load_url_without_code(*args: Any, **kwargs: Any) -> Any:
        kwargs['weights_only'] = True
        with own_safe_globals():
            return load_url_by_torch(*args, **kwargs)

    checkpoint.load_url = load_url_without_code
