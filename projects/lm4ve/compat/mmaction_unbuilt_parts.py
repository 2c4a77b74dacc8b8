"""mmaction2's recognizers do not build or call every part of a config."""

from collections.abc import Callable
from typing import Any

import wrapt
from mmengine.registry import DefaultScope
from torch import nn

from lm4ve.errors import UserError

#: Recognizers whose ``extract_feat`` never calls the neck that they build.
_WITHOUT_NECK = ('RecognizerAudio', 'RecognizerGCN', 'MMRecognizer3D')


class NeckSequence(nn.Sequential):
    """Necks in mmaction2's protocol, one after the other; their losses come together."""

    def forward(self, x: Any, data_samples: list | None = None) -> tuple:
        """Run the necks; those of another host get and give features alone.

        Args:
            x: Features, as the first neck takes them.
            data_samples (list, optional): Passed to each neck of mmaction2's protocol.

        Returns:
            tuple: Features and a dict of losses.

        Raises:
            ValueError: Two necks have a loss of the same name.
        """
        losses: dict = {}
        for neck in self:
            if neck.__module__.startswith(('mmpretrain.', 'torch.')):
                x = neck(x)
                continue
            x, own_losses = neck(x, data_samples=data_samples)
            twice = losses.keys() & own_losses.keys()
            if twice:
                raise ValueError(
                    f'Two necks of a sequence have a loss named {sorted(twice)}.'
                )
            losses.update(own_losses)
        return x, losses


def build_recognizers(recognizer: Any) -> None:
    """mmaction2's recognizers do not build or call every part that a config may have.

    Broken in mmaction2 1.2.0 (not reported upstream):

    - Recognizers name their preprocessor without a scope: built outside of 'mmaction'
      they fail with a ``KeyError``.
    - ``neck=[...]`` becomes a plain sequence, which takes no ``data_samples`` and hands
      ``(features, losses)`` of one neck to the next.
    - ``RecognizerGCN``, ``RecognizerAudio`` and ``MMRecognizer3D`` build ``neck=`` and
      never call it, so that a block in it would do nothing.

    May go once ``BaseRecognizer`` builds its parts by mmaction2's registry and calls
    each neck.
    """
    wrapt.wrap_function_wrapper(recognizer, '__init__', _init)


def _init(init: Callable[..., None], model: Any, args: Any, kwargs: Any) -> None:
    with DefaultScope.overwrite_default_scope('mmaction'):
        init(*args, **kwargs)
    neck = getattr(model, 'neck', None)
    if isinstance(neck, nn.Sequential) and not isinstance(neck, NeckSequence):
        model.neck = NeckSequence(*neck)
    _refuse_uncalled_neck(model)


def _refuse_uncalled_neck(model: Any) -> None:
    """Refuse a block in a neck that its host never calls.

    Raises:
        UserError: The host is one of those.
    """
    host = type(model).extract_feat.__qualname__.partition('.')[0]
    if host not in _WITHOUT_NECK or not model.with_neck:
        return
    if any(type(module).__name__ == 'LLMBlockNeck' for module in model.neck.modules()):
        raise UserError(
            f'model.neck: {host} never calls its neck. Fix: LLMBlockInsert.'
        )
