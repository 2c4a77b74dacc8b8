"""What hosts, hooks and tools read of a neck."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lm4ve.necks.fields import NeckFields
from lm4ve.necks.parts.part import Part
from lm4ve.necks.reader import FeatureReader


class NeckInterface:
    """Questions about a neck, answered by its fields, its reader and its parts.

    The modules ``block``, ``mapper_in``, ``mapper_out``, ``norm``, ``skip`` and ``gate``
    (None where a neck has none) are read and replaced by their names.
    """

    fields: NeckFields
    reader: FeatureReader
    block: Any
    guard: bool

    @property
    def parts(self) -> list[Part]:
        """The variants in the order in which they act."""
        raise NotImplementedError

    @property
    def in_channels(self) -> int:
        """C, the width of the features."""
        return self.fields.in_channels

    @property
    def out_type(self) -> str:
        """'raw', 'cls_token' or 'avg_featmap'."""
        return self.fields.out_type

    @property
    def num_extra_tokens(self) -> int:
        """How many class and register tokens come first."""
        return self.fields.num_extra_tokens

    @property
    def layout(self) -> str | None:
        """The letters of the features' dimensions; None: by their number."""
        return self.fields.layout

    @property
    def index(self) -> int:
        """Which entry of a sequence of features the neck reads."""
        return self.fields.index

    @property
    def keep_others(self) -> bool:
        """True if all entries of a sequence are returned, not only the one at ``index``."""
        return self.fields.keep_others

    @property
    def norm_first(self) -> bool:
        """True if tokens are normed before their mean is taken, not after it."""
        return self.fields.norm_first

    @property
    def shuffle_tokens(self) -> bool:
        """True if the block reads the tokens in random order."""
        return self.fields.shuffle_tokens

    @property
    def reads_class_token(self) -> bool:
        """True if the output is the encoder's class token."""
        return self.fields.out_type == 'cls_token'

    @property
    def averages_tokens(self) -> bool:
        """True if the output is a mean over tokens."""
        return self.fields.out_type == 'avg_featmap'

    @property
    def follows_progress(self) -> bool:
        """True if a training step depends on how far training has come.

        It does with a soft causal mask, and with parts whose strength changes.
        """
        if getattr(self.block, 'soft_mask', None) is not None:
            return True
        return any(part.follows_progress for part in self.parts)

    def set_progress(self, progress: float) -> None:
        """Set how far training has come, before each step.

        ``lm4ve.NeckProgressHook`` does so.

        Args:
            progress (float): In [0, 1].
        """
        for part in self.parts:
            part.progress = progress
        soft_mask = getattr(self.block, 'soft_mask', None)
        if soft_mask is not None:
            soft_mask.progress = progress

    def pick(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the features that go through the neck; see :class:`FeatureReader`."""
        return self.reader.pick(feats)

    def pick_output(self, output: Any) -> Tensor:
        """Return the tensor that the neck has made, of what its host gets.

        Args:
            output: What ``forward`` has returned: a tensor, or a tuple.
        """
        out: Any = features_of(output)
        if isinstance(out, Tensor):
            return out
        made: Tensor = out[self.index if self.keep_others else 0]
        return made


def features_of(output: Any) -> Any:
    """Return the features of a neck's output, which mmaction2's protocol pairs with losses."""
    if isinstance(output, tuple) and isinstance(output[-1], dict):
        return output[0]
    return output
