"""The neck and the 2D recognizer in mmaction2's protocol.

mmaction2 calls ``neck(x, data_samples=...)`` in training and ``neck(x)`` in tests and
expects ``(features, losses)``. A class of the neck's own name in its registry
implements that, so that configs use ``type='LLMBlockNeck'`` in every host.
"""

from collections.abc import Sequence

from mmaction.models.backbones import SwinTransformer3D
from mmaction.models.recognizers import Recognizer2D as _Recognizer2D
from mmaction.registry import MODELS as MMACTION_MODELS
from torch import Tensor, nn

from lm4ve.compat.for_mmaction import extract_feat
from lm4ve.necks import LLMBlockNeck as _LLMBlockNeck
from lm4ve.registry import MODELS


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
        return super().forward(x if self.keep_others else self.pick(x)), {}


@MODELS.register_module()
class Recognizer2D(_Recognizer2D):
    """mmaction2's ``Recognizer2D`` with a neck from one map to one map.

    The host's own recognizer supports ``LLMBlockNeck`` too (a repair), one frame at a
    time. Without a neck this is the host's recognizer with working
    ``max_testing_views``.

    Args:
        *args: Passed to mmaction2's ``Recognizer2D``.
        frames_per_clip (int): The number of successive frames in one clip ``[B, C, T,
            H, W]`` of the neck, whose tokens attend to each other. 1 (the default)
            keeps frames apart, as TSN does before its consensus. Training and testing
            must sample multiples of it.
        **kwargs: Passed to mmaction2's ``Recognizer2D``.

    Raises:
        UserError: The number of frames, or ``test_cfg.max_testing_views``, is
            no multiple of ``frames_per_clip``.
    """

    def __init__(self, *args, frames_per_clip: int = 1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.frames_per_clip = frames_per_clip

    def extract_feat(self, *args, **kwargs) -> tuple:
        """Extract features of a stage; see :func:`lm4ve.compat.for_mmaction.extract_feat`.

        Returns:
            tuple[Tensor, dict]: Maps ``[B * V, C', H', W']`` (or logits for
            'head') and the head's arguments.
        """
        return extract_feat(self, super().extract_feat, *args, **kwargs)


@MODELS.register_module()
class RawSwinTransformer3D(SwinTransformer3D):
    """mmaction2's Video Swin whose output maps are not normed.

    The block's place is before the final norm, which the neck then applies; the
    host's ``norm_cfg=None`` would remove the norms of the blocks as well.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for i in self.out_indices:
            setattr(self, f'norm{i}', nn.Identity())
