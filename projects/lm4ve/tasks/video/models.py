"""The neck and the 2D recognizer in mmaction2's protocol.

mmaction2 calls ``neck(x, data_samples=...)`` in training and ``neck(x)`` in
tests and expects ``(features, losses)``. A class of the neck's own name in its
registry speaks that, so that configs say ``type='LLMBlockNeck'`` in every host.
"""

from collections.abc import Sequence

import torch
from mmaction.models.backbones import SwinTransformer3D
from mmaction.models.recognizers import Recognizer2D as _Recognizer2D
from mmaction.registry import MODELS as MMACTION_MODELS
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck as _LLMBlockNeck
from lm4ve.registry import MODELS


@MMACTION_MODELS.register_module()
class LLMBlockNeck(_LLMBlockNeck):
    """:class:`lm4ve.necks.LLMBlockNeck` for mmaction2's recognizers.

    Takes the same arguments. VideoMAE's ViT gives its map with
    ``return_feat_map=True``; ``out_type='avg_featmap'`` (mean over tokens, then
    the norm: VideoMAE's ``fc_norm``) goes with ``TimeSformerHead``, 'raw' with
    heads that pool. The weights of a checkpoint's ``backbone.fc_norm`` become
    those of the neck's norm if it has none of its own.

    Of several maps the host's heads get the one that went through the neck, and all of them
    with ``keep_others=True``, as ``SlowFastHead`` takes them.
    """

    def forward(
        self, x: Tensor | Sequence[Tensor], data_samples: list | None = None
    ) -> tuple[Tensor, dict]:
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
        picked = self.pick(x)
        if picked.dim() == 2:
            raise UserError(
                f'The backbone gives one vector a clip, {list(picked.shape)}; the '
                'neck takes tokens or a map. Fix: '
                'model.backbone.return_feat_map=True (VisionTransformer).'
            )
        out = super().forward(x if self.keep_others else picked)
        return out, {}


@MODELS.register_module()
class Recognizer2D(_Recognizer2D):
    """mmaction2's ``Recognizer2D`` with a neck that takes and gives one map.

    The host's recognizer iterates over a single map as if it were several, and its
    ``max_testing_views`` fails for every backbone. Without a neck this is the
    host's recognizer with working ``max_testing_views``.

    Args:
        *args: Passed to mmaction2's ``Recognizer2D``.
        frames_per_clip (int): How many successive frames the neck gets as one
            clip ``[B, C, T, H, W]``, whose tokens attend to each other.
            1 (the default) keeps frames apart, as TSN does before its
            consensus. Training and testing must sample multiples of it.
        **kwargs: Passed to mmaction2's ``Recognizer2D``.

    Raises:
        UserError: The number of frames, or ``test_cfg.max_testing_views``, is
            no multiple of ``frames_per_clip``.
    """

    def __init__(self, *args, frames_per_clip: int = 1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.frames_per_clip = frames_per_clip

    def extract_feat(
        self,
        inputs: Tensor,
        stage: str = 'neck',
        data_samples: list | None = None,
        test_mode: bool = False,
    ) -> tuple:
        """Extract features of a stage.

        Args:
            inputs (Tensor): Frames ``[B, V, C, H, W]``, V crops times segments.
            stage (str): 'backbone', 'neck' or 'head'.
            data_samples (list, optional): Passed to the neck in training.
            test_mode (bool): Obey ``test_cfg``.

        Returns:
            tuple[Tensor, dict]: Maps ``[B * V, C', H', W']`` (or logits for
            'head') and the head's arguments.
        """
        test_cfg = (test_mode and self.test_cfg) or {}
        views = inputs.shape[1]
        frames = inputs.flatten(0, 1)
        at_once = test_cfg.get('max_testing_views') or len(frames)
        for name, number in (
            ('The number of frames', views),
            ('test_cfg.max_testing_views', at_once),
        ):
            if self.with_neck and number % self.frames_per_clip:
                raise UserError(
                    f'{name} ({number}) is no multiple of model.frames_per_clip='
                    f'{self.frames_per_clip}. Fix: change num_clips of the '
                    'pipeline, test_cfg or frames_per_clip.'
                )
        feats, losses = [], {}
        for part in frames.split(at_once):
            x, _ = super().extract_feat(part[None], stage='backbone')
            if isinstance(x, (tuple, list)):
                x = x[-1]
            if stage != 'backbone' and self.with_neck:
                x, losses = self._through_neck(x, data_samples)
            feats.append(x)
        x = torch.cat(feats)
        arguments = dict(num_segs=views * len(x) // len(frames))
        if test_mode:
            arguments['fcn_test'] = bool(test_cfg.get('fcn_test', False))
        if stage == 'backbone':
            return x, arguments
        if arguments.get('fcn_test'):
            segments = test_cfg.get('num_segs') or self.backbone.num_segments
            x = x.unflatten(0, (-1, segments)).transpose(1, 2).contiguous()
        arguments['loss_aux'] = losses
        if stage == 'head' and self.with_cls_head:
            return self.cls_head(x, **arguments), arguments
        return x, arguments

    def _through_neck(self, x: Tensor, data_samples: list | None):
        """``[N, C, H, W]`` through the neck as clips, and back."""
        clips = x.unflatten(0, (-1, self.frames_per_clip)).transpose(1, 2)
        out, losses = self.neck(clips, data_samples=data_samples)
        if out.dim() == 2:  # one vector a clip: a map of one pixel
            return out[..., None, None], losses
        return out.transpose(1, 2).flatten(0, 1), losses


@MODELS.register_module()
class RawSwinTransformer3D(SwinTransformer3D):
    """mmaction2's Video Swin whose output maps are not normed.

    The block's place is before the final norm, which the neck then applies; the
    host's ``norm_cfg=None`` would take the norms out of the blocks as well.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for i in self.out_indices:
            setattr(self, f'norm{i}', nn.Identity())
