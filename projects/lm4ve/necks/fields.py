"""The fields of a neck, and which of them go together."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lm4ve.errors import UserError, check, require
from lm4ve.necks.layouts import DEFAULTS, check_layout
from lm4ve.necks.parts.branch import TrainBranch
from lm4ve.necks.parts.gate import FORMS
from lm4ve.necks.parts.mappers import Mappers

RESIDUALS = ('none', 'inner', 'outer', 'both')
OUT_TYPES = ('raw', 'cls_token', 'avg_featmap')
#: Fields that change no number, or that tensors show: no checkpoint records them.
UNRECORDED = ('in_channels', 'low_rank')
LOW_RANKS = ('auto', 'absorb', 'fold', 'off')


@dataclass(frozen=True)
class NeckFields:
    """The arguments of :class:`lm4ve.necks.LLMBlockNeck`, which documents them.

    Those of a part are parsed.

    Raises:
        UserError: A field has no such value, or does not go with the others.
    """

    in_channels: int
    residual: str
    out_type: str
    low_rank: str
    layout: str | None
    num_extra_tokens: int
    index: int
    keep_others: bool
    norm_first: bool
    branch: TrainBranch | None
    mapper: Mappers | None
    gate: bool | str
    shuffle_tokens: bool

    def __post_init__(self) -> None:
        check('neck.residual', self.residual, choices=RESIDUALS)
        check('neck.out_type', self.out_type, choices=OUT_TYPES)
        check('neck.low_rank', self.low_rank, choices=LOW_RANKS)
        if self.layout is not None:
            check_layout(self.layout)
        check('neck.num_extra_tokens', self.num_extra_tokens, kind=int, least=0)
        check('neck.gate', self.gate, choices=FORMS)
        check('neck.shuffle_tokens', self.shuffle_tokens, choices=(True, False))
        self._check_residual()
        if self.branch is not None and self.shuffle_tokens:
            raise UserError('neck.branch does not go with shuffle_tokens=True.')

    @property
    def leading_tokens(self) -> int:
        """How many tokens come first that are no patches."""
        if self.out_type == 'cls_token':
            return max(self.num_extra_tokens, 1)
        return self.num_extra_tokens

    @property
    def gate_form(self) -> str:
        """'none', 'scalar' or 'tanh'."""
        return FORMS[self.gate]

    def record(self) -> dict[str, Any]:
        """Return the fields as a checkpoint records them.

        Those that change no number are left out. Of a branch only its existence counts:
        its weight acts in training alone.
        """
        record = asdict(self)
        for name in UNRECORDED:
            del record[name]
        record['branch'] = self.branch is not None
        record['mapper'] = asdict(self.mapper or Mappers())
        # The default of a number of dimensions is what it is without a word.
        if self.layout in DEFAULTS.values():
            record['layout'] = None
        averages = self.out_type == 'avg_featmap'
        if not averages:
            del record['norm_first']
        if not averages and not self.shuffle_tokens:
            del record['num_extra_tokens']
        return record

    def _check_residual(self) -> None:
        """Check that the parts beside or around a residual have the one they need."""
        if self.branch is not None:
            # The others add the neck's input to its output, which the branch does
            # itself.
            field = 'neck.residual with neck.branch'
            check(field, self.residual, choices=('none', 'inner'))
        if self.gate:
            field = 'neck.residual with neck.gate'
            check(field, self.residual, choices=('inner', 'outer'))
        if self.mapper is not None and self.mapper.skip is not None:
            field = 'neck.residual with neck.mapper.skip'
            check(field, self.residual, choices=('outer', 'both'))

    def check_block(self, block: nn.Module) -> None:
        """Check that the fields go with a block.

        Args:
            block (nn.Module): The neck's block, of any class.

        Raises:
            UserError: They do not.
        """
        self._check_low_rank(block)
        if self.shuffle_tokens and not _depends_on_order(block):
            raise UserError(
                'neck.shuffle_tokens=True has no effect: the order of the tokens changes '
                'nothing in the block. Fix: block.causal=True or block.rotary=True.'
            )

    def _check_low_rank(self, block: nn.Module) -> None:
        """Check that a block can compute its first layer by the method of ``low_rank``.

        A block of another class has no such methods, and runs as a module.
        """
        if not getattr(block, 'supports_low_rank', True):
            source: Any = block.source
            require(
                self.low_rank in ('auto', 'off'),
                f"neck.low_rank='{self.low_rank}': '{source['model_type']}' has no "
                'layer spec, and its own layer runs as a whole. Fix: '
                "neck.low_rank='auto'.",
            )
        if not getattr(block, 'may_absorb', True):
            causes = "block.rotary=True, block.kv_heads='tiled', a soft mask or norms of keys"
            field = f'neck.low_rank with {causes}'
            check(field, self.low_rank, choices=('auto', 'fold', 'off'))


def _depends_on_order(block: Any) -> bool:
    """Return whether a block's outputs change with the order of any of its tokens."""
    source = getattr(block, 'source', {})
    settings = ('causal', 'causal_suffix', 'rotary', 'window')
    return any(source.get(name) for name in settings)
