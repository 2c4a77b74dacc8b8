"""A list of necks does not work in mmaction2's recognizers.

Broken in mmaction2 1.2.0 (not reported upstream): ``neck=[...]`` becomes a plain sequence,
which takes no ``data_samples`` and hands the pair ``(features, losses)`` of one neck to the
next. May go once recognizers call each neck of a list in their protocol.
"""

from types import ModuleType

import wrapt
from torch import nn


class NeckSequence(nn.Sequential):
    """Necks in mmaction2's protocol, one after the other; their losses come together."""

    def forward(self, x, data_samples: list | None = None) -> tuple:
        """Run the necks; those that are another host's take and give features alone.

        Raises:
            ValueError: Two necks have a loss of one name.
        """
        losses: dict = {}
        for neck in self:
            if neck.__module__.startswith(('mmpretrain.', 'torch.')):
                x = neck(x)
                continue
            x, more = neck(x, data_samples=data_samples)
            if twice := losses.keys() & more.keys():
                raise ValueError(f'Two necks of a sequence have a loss named {sorted(twice)}.')
            losses.update(more)
        return x, losses


def is_needed(base: ModuleType) -> bool:
    """Return whether a list of necks becomes a plain sequence."""
    from mmaction.registry import MODELS

    built = MODELS.build([dict(type=nn.Identity), dict(type=nn.Identity)])
    return isinstance(built, nn.Sequential)


def repair(base: ModuleType) -> None:
    """Let recognizers call the necks of a list one by one.

    Args:
        base (ModuleType): ``mmaction.models.recognizers.base``.
    """

    @wrapt.patch_function_wrapper(base, 'BaseRecognizer.__init__')
    def _(original, model, args, kwargs) -> None:
        original(*args, **kwargs)
        neck = getattr(model, 'neck', None)
        if isinstance(neck, nn.Sequential) and not isinstance(neck, NeckSequence):
            model.neck = NeckSequence(*neck)
