"""The 2D recognizer in mmaction2's protocol, with a neck over several frames."""

from mmaction.models.recognizers import Recognizer2D as _Recognizer2D

from lm4ve.compat.mmaction_single_maps import extract_feat
from lm4ve.registry import MODELS


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
        """Extract features of a stage; see :func:`lm4ve.compat.mmaction_single_maps.extract_feat`.

        Returns:
            tuple[Tensor, dict]: Maps ``[B * V, C', H', W']`` (or logits for
            'head') and the head's arguments.
        """
        return extract_feat(self, super().extract_feat, *args, **kwargs)
