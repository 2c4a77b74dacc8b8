"""Let mmaction2's recognizers build every part of a config, or refuse a part without effect."""

from collections.abc import Callable
from typing import Any

import wrapt
from mmengine.registry import DefaultScope
from torch import nn

from lm4ve.compat.mmaction_single_maps import is_neck_of_ours
from lm4ve.errors import UserError

#: Recognizers whose ``extract_feat`` never calls the neck that they build.
_WITHOUT_NECK = ('RecognizerAudio', 'RecognizerGCN', 'MMRecognizer3D')


class NeckSequence(nn.Sequential):
    """Necks that run one after the other and return features and losses, as one neck does.

    In mmaction2's protocol a neck is called as ``neck(x, data_samples=...)`` and returns
    ``(features, losses)``. Necks of mmpretrain and modules of torch are called as
    ``neck(x)`` and return features.
    """

    def forward(self, x: Any, data_samples: list | None = None) -> tuple:
        """Run the necks on features, and collect their losses.

        Args:
            x: The input of the first neck.
            data_samples (list, optional): Passed to each neck of mmaction2's protocol.

        Returns:
            tuple: The output of the last neck, and the losses of all necks by name.

        Raises:
            ValueError: Two necks have a loss of the same name.
        """
        losses: dict = {}
        for neck in self:
            if neck.__module__.startswith(('mmpretrain.', 'torch.')):
                x = neck(x)
                continue
            x, neck_losses = neck(x, data_samples=data_samples)
            shared = losses.keys() & neck_losses.keys()
            if shared:
                raise ValueError(
                    f'Two necks of a sequence have a loss named {sorted(shared)}.'
                )
            losses.update(neck_losses)
        return x, losses


def build_recognizers(recognizer: Any) -> None:
    """Let recognizers build their parts in mmaction2's scope and call all necks of a list.

    A recognizer that would never call its block is refused. The constructor of
    ``BaseRecognizer`` is wrapped.

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
    wrapt.wrap_function_wrapper(recognizer, '__init__', _build_parts)


def _build_parts(init: Callable[..., None], model: Any, args: Any, kwargs: Any) -> None:
    """Construct a recognizer by mmaction2's ``init``, and mend or refuse its neck.

    Raises:
        UserError: The neck has a block, and the recognizer never calls its neck.
    """
    with DefaultScope.overwrite_default_scope('mmaction'):
        init(*args, **kwargs)
    neck = getattr(model, 'neck', None)
    if isinstance(neck, nn.Sequential) and not isinstance(neck, NeckSequence):
        model.neck = NeckSequence(*neck)
    _refuse_uncalled_neck(model)


def _refuse_uncalled_neck(model: Any) -> None:
    """Refuse a block in the neck of a recognizer that never calls its neck.

    Raises:
        UserError: The recognizer inherits ``extract_feat`` from a class in
            ``_WITHOUT_NECK`` and its neck has a block.
    """
    # The class that defines the method: a subclass may define one that calls the neck.
    host = type(model).extract_feat.__qualname__.partition('.')[0]
    if host not in _WITHOUT_NECK or not model.with_neck:
        return
    if any(is_neck_of_ours(module) for module in model.neck.modules()):
        raise UserError(
            f'model.neck: {host} never calls its neck. Fix: LLMBlockInsert.'
        )
