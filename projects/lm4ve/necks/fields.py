"""The fields of a neck, and which of them go together."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lm4ve.errors import UserError, check, require
from lm4ve.necks.layouts import check_layout
from lm4ve.necks.parts.branch import TrainBranch
from lm4ve.necks.parts.draw_tokens import TrainQueries
from lm4ve.necks.parts.gate import FORMS
from lm4ve.necks.parts.mappers import Mappers
from lm4ve.necks.parts.queries import QueryFields
from lm4ve.necks.record import NeckRecord, describe_layout, describe_norm

RESIDUALS = ('none', 'inner', 'outer', 'both')
OUT_TYPES = ('raw', 'cls_token', 'avg_featmap', 'query')
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
    train_queries: TrainQueries | None
    branch: TrainBranch | None
    queries: QueryFields | None
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
        self._check_queries()
        self._check_training()

    @property
    def averages_tokens(self) -> bool:
        """True if the output is a mean or maximum over tokens, or a query made of one."""
        if self.queries is not None:
            return self.queries.mean or self.queries.max
        return self.out_type == 'avg_featmap'

    @property
    def reads_class_token(self) -> bool:
        """True if the output is the encoder's class token, or a query made of it."""
        if self.queries is not None:
            return self.queries.cls_token
        return self.out_type == 'cls_token'

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

    def to_record(self, block: nn.Module, norm: nn.Module | None) -> NeckRecord:
        """Return what a checkpoint records of the fields; parts add theirs.

        Args:
            block (nn.Module): The neck's block.
            norm (nn.Module, optional): The neck's norm.
        """
        averages = self.out_type == 'avg_featmap'
        reads_extra = averages or self.queries is not None or self.shuffle_tokens
        # A field without an effect is None, so that it is not compared.
        num_extra_tokens = None
        if reads_extra:
            num_extra_tokens = self.num_extra_tokens
        norm_first = None
        if averages:
            norm_first = self.norm_first
        record = NeckRecord(
            residual=self.residual,
            layout=describe_layout(self.layout),
            num_extra_tokens=num_extra_tokens,
            norm_first=norm_first,
            index=self.index,
            keep_others=self.keep_others,
            branch='none',
            out_type=self.out_type,
            norm=describe_norm(norm),
            heads=getattr(block, 'num_heads', None),
            gate=self.gate_form,
        )
        if self.mapper is not None:
            record.mapper = asdict(self.mapper)
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

    def _check_queries(self) -> None:
        """Check that there are queries for 'query' alone, and tokens for them."""
        if self.out_type != 'query':
            require(
                self.queries is None,
                f"neck.queries goes with neck.out_type='query', not '{self.out_type}'. "
                'Fix: set that out_type, or leave neck.queries out.',
            )
            return
        if self.queries is None:
            raise UserError(
                "neck.queries is missing, which neck.out_type='query' reads. Fix: "
                'neck.queries=dict(learned=1), or another neck.out_type.'
            )
        require(
            not self.keep_others,
            "neck.keep_others=True does not go with neck.out_type='query', which has "
            'no map. Fix: neck.keep_others=False.',
        )
        if self.queries.cls_token:
            field = 'neck.num_extra_tokens with queries.cls_token'
            check(field, self.num_extra_tokens, kind=int, least=1)

    def _check_training(self) -> None:
        """Check that what acts in training only goes with the tokens' number and order."""
        if self.train_queries is not None:
            # One token is nothing to draw from.
            field = 'neck.out_type with neck.train_queries'
            check(field, self.out_type, choices=('raw', 'avg_featmap'))
        if self.branch is None and self.train_queries is None:
            return
        if self.out_type == 'query':
            raise UserError(
                "neck.branch and neck.train_queries do not go with out_type='query'."
            )
        if self.shuffle_tokens:
            raise UserError(
                'neck.branch and neck.train_queries do not go with shuffle_tokens=True.'
            )

    def check_block(self, block: nn.Module) -> None:
        """Check that the fields go with a block.

        Args:
            block (nn.Module): The neck's block, of any class.

        Raises:
            UserError: They do not.
        """
        self._check_low_rank(block)
        causal_suffix = getattr(block, 'causal_suffix', 0)
        if self.queries is not None and causal_suffix:
            _check_suffix(self.queries, causal_suffix)
        # With out_type='query' the suffix is the queries, which are not shuffled.
        has_suffix = causal_suffix > 0 and self.queries is None
        depends_on_order = has_suffix or _depends_on_order(block)
        if self.shuffle_tokens and not depends_on_order:
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
            causes = (
                "block.rotary=True, block.kv_heads='tiled', a soft mask, norms of keys, "
                'clipping or sinks'
            )
            field = f'neck.low_rank with {causes}'
            check(field, self.low_rank, choices=('auto', 'fold', 'off'))


def _check_suffix(queries: QueryFields, causal_suffix: int) -> None:
    """Check that the tokens of the block's causal suffix are the neck's queries.

    Args:
        queries (QueryFields): The neck's field ``queries``.
        causal_suffix (int): How many last tokens of the block are causal, at least 1.
    """
    require(
        causal_suffix == queries.count,
        f"block.causal_suffix={causal_suffix} with neck.out_type='query' must be the "
        f'number of queries. Fix: block.causal_suffix={queries.count}.',
    )
    require(
        queries.keys,
        f'neck.queries.keys=False with block.causal_suffix={causal_suffix}: queries '
        'that are no keys cannot read each other. Fix: neck.queries.keys=True.',
    )


def _depends_on_order(block: Any) -> bool:
    """Return whether a block's outputs change with the order of any of its tokens."""
    source = getattr(block, 'source', {})
    return bool(source.get('causal') or source.get('rotary') or source.get('window'))
