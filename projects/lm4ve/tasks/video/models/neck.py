"""The neck in mmaction2's protocol, by the name that it has in every host.

mmaction2 calls ``neck(x, data_samples=...)`` in training and ``neck(x)`` in tests, and
expects ``(features, losses)``.
"""

from collections.abc import Sequence

from mmaction.registry import MODELS as MMACTION_MODELS
from torch import Tensor

from lm4ve.necks import LLMBlockNeck


@MMACTION_MODELS.register_module(name='LLMBlockNeck')
class RecognizerNeck(LLMBlockNeck):
    """:class:`lm4ve.necks.LLMBlockNeck` for mmaction2's recognizers, with its arguments.

    The heads receive one map, also where the backbone gives several; with
    ``keep_others=True``, for ``SlowFastHead``, all of them.
    """

    def forward(  # type: ignore[override]
        self, x: Tensor | Sequence[Tensor], data_samples: list | None = None
    ) -> tuple[Tensor | tuple[Tensor, ...], dict]:
        """Run the neck; return what it gives, and no further losses.

        Args:
            x (Tensor | Sequence[Tensor]): Features, or a sequence of which
                :attr:`index` is used.
            data_samples (list, optional): Not used.
        """
        if not self.keep_others:
            x = self.pick(x)
        return super().forward(x), {}
