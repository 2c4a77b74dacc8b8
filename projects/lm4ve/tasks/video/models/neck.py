"""The neck in mmaction2's protocol.

mmaction2 calls ``neck(x, data_samples=...)`` in training and ``neck(x)`` in tests and
expects ``(features, losses)``. A class of the neck's own name in its registry
implements that, so that configs use ``type='LLMBlockNeck'`` in every host.
"""

from collections.abc import Sequence

from mmaction.registry import MODELS as MMACTION_MODELS
from torch import Tensor

from lm4ve.necks import LLMBlockNeck as _LLMBlockNeck


@MMACTION_MODELS.register_module()
class LLMBlockNeck(_LLMBlockNeck):
    """:class:`lm4ve.necks.LLMBlockNeck` for mmaction2's recognizers.

    The arguments are the same. VideoMAE's ViT returns its map with
    ``return_feat_map=True``; ``out_type='avg_featmap'`` (mean over tokens, then the
    norm: VideoMAE's ``fc_norm``) belongs to ``TimeSformerHead``, 'raw' to heads that
    pool. The weights of a checkpoint's ``backbone.fc_norm`` become those of the neck's
    norm if it has none of its own.

    Of several maps the host's heads receive the one from the neck; with
    ``keep_others=True``, for ``SlowFastHead``, all of them.
    """

    # mmaction2 passes other arguments than the other hosts.
    def forward(  # type: ignore[override]
        self, x: Tensor | Sequence[Tensor], data_samples: list | None = None
    ) -> tuple[Tensor | tuple[Tensor, ...], dict]:
        """Run the neck.

        Args:
            x (Tensor | Sequence[Tensor]): A clip map ``[B, C, T, H, W]``, a
                frame map ``[B, C, H, W]`` or tokens ``[B, N, C]``; of a
                sequence :attr:`index` is used.
            data_samples (list, optional): Not used; the host passes it in
                training.

        Returns:
            tuple[Tensor, dict]: The map in the layout it came in, or ``[B, C]``
            for 'avg_featmap' and 'cls_token', or all maps with ``keep_others``; and no
            further losses.

        Raises:
            UserError: The features have another width or an unknown layout.
        """
        if not self.keep_others:
            x = self.pick(x)
        further_losses: dict = {}
        return super().forward(x), further_losses
