"""What later papers vary around the block: mappers, learned and pooled queries, token order.

Each is a field of :class:`lm4ve.necks.LLMBlockNeck`. A neck without them does not
import this file.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from mmengine.model import Sequential
from torch import Tensor, nn

from lm4ve.blocks.layer import Queries, check_padding
from lm4ve.errors import UserError, build_from, check, require
from lm4ve.necks.layouts import mean_of_tokens

_ACTS = ('GELU', 'ReLU', 'LeakyReLU', 'SiLU', 'Tanh')


@dataclass(frozen=True)
class Mappers:
    """The fields of ``mapper``.

    Attributes:
        bias (bool): Whether linear layers have a bias.
        depth (int): 1 or 2 linear layers each, with GELU between two. The width between
            them is C in both mappers.
        act (str, optional): An activation after each mapper: 'GELU', 'ReLU',
            'LeakyReLU', 'SiLU' or 'Tanh'.
        skip (str, optional): Send the outer residual through a linear layer ``C -> C``
            and this activation (``llm_out_nn`` of arXiv 2403.17343: 'LeakyReLU').
    """

    bias: bool = False
    depth: int = 1
    act: str | None = None
    skip: str | None = None

    def __post_init__(self) -> None:
        check('neck.mapper.bias', self.bias, choices=(True, False))
        check('neck.mapper.depth', self.depth, choices=(1, 2))
        check('neck.mapper.act', self.act, choices=(None, *_ACTS))
        check('neck.mapper.skip', self.skip, choices=(None, *_ACTS))

    def build(self, *widths: int) -> nn.Module:
        """Build a mapper between widths: a single linear layer as it is, or a sequence."""
        act = [] if self.act is None else [getattr(nn, self.act)()]
        linears = [nn.Linear(a, b, self.bias) for a, b in pairwise(widths)]
        deeper = (m for x in linears[1:] for m in (nn.GELU(), x))
        layers: list[nn.Module] = [linears[0], *deeper, *act]
        return layers[0] if len(layers) == 1 else Sequential(*layers)


def add_variants(neck: Any, gate: Any, queries: Any, mapper: Any, lora: Any) -> None:
    """Add the optional parts that a neck's fields name, and record them.

    Args:
        neck (LLMBlockNeck): It has its block and plain mappers.
        gate, queries, mapper, lora: See :class:`lm4ve.necks.LLMBlockNeck`.

    Raises:
        UserError: A field has no such value, or does not go with the others.
    """
    check('neck.gate', gate, choices=(False, True, 'tanh'))
    if gate:
        check('neck.residual with neck.gate', neck.residual, choices=('inner', 'outer'))
        neck.gate = nn.Parameter(torch.zeros(1))
        neck.variants['gate'] = 'tanh' if gate == 'tanh' else 'scalar'
    if queries is not None:
        require(
            neck.out_type == 'query',
            f"neck.queries goes with neck.out_type='query', not '{neck.out_type}'. Fix: set that "
            'out_type, or leave neck.queries out.',
        )
    if mapper is not None:
        neck.variants['mapper'] = build_mappers(mapper, neck)
    if lora is not None:
        neck.variants['mapper_lora'] = adapt_mappers(lora, neck)
    if neck.out_type == 'query':
        neck.query = QueryTokens(queries, neck)
        neck.variants['queries'] = asdict(neck.query.fields)
    check('neck.shuffle_tokens', neck.shuffle_tokens, choices=(True, False))
    neck.variants['shuffle_tokens'] = neck.shuffle_tokens
    if neck.shuffle_tokens:
        check_shuffle(neck)


def build_mappers(fields: dict[str, Any], neck: Any) -> dict[str, Any]:
    """Give a neck its mappers.

    Args:
        fields (dict): Fields of :class:`Mappers`.
        neck (LLMBlockNeck): It has its block.

    Returns:
        dict: What a checkpoint records.

    Raises:
        UserError: A field has no such value, or there is no outer residual for
            ``skip``.
    """
    mappers = build_from(Mappers, fields, 'neck.mapper')
    c, d = neck.in_channels, neck.block.embed_dims
    between = (c,) * (mappers.depth - 1)
    neck.mapper_in = mappers.build(c, *between, d)
    neck.mapper_out = mappers.build(d, *between, c)
    if mappers.skip is not None:
        check(
            'neck.residual with neck.mapper.skip',
            neck.residual,
            choices=('outer', 'both'),
        )
        neck.skip = Sequential(
            nn.Linear(c, c, mappers.bias), getattr(nn, mappers.skip)()
        )
    return asdict(mappers)


def adapt_mappers(fields: dict[str, Any], neck: Any) -> dict[str, Any]:
    """Put LoRA on a neck's mappers, whose own weights are frozen then; return its record."""
    from lm4ve.blocks.adapters import add_lora

    mappers = nn.ModuleDict(dict(mapper_in=neck.mapper_in, mapper_out=neck.mapper_out))
    record = add_lora(mappers, fields, 'neck.lora', tuple(mappers), seed=0)
    neck.mapper_in, neck.mapper_out = mappers['mapper_in'], mappers['mapper_out']
    return record


@dataclass(frozen=True)
class FewQueries:
    """The fields of ``queries``: the tokens that read all others.

    Attributes:
        learned (int): How many learned tokens, 0 to 16 (CaiT's class attention,
            V-JEPA's attentive probe).
        mean, max (bool): The mean of the tokens, and their maximum in each channel.
        cls_token (bool): The encoder's own class token beside them.
        keys (bool): The queries also serve as keys and values. With ``causal_suffix``
            of the block each reads those before it (DeepSeek-OCR 2); without, each
            reads all.
        join (str): 'mean' over the queries' outputs, ``[B, C]``; or 'concat', ``[B, Q *
            C]``: the class token, learned ones, mean, maximum.
    """

    learned: int = 0
    mean: bool = False
    max: bool = False
    cls_token: bool = False
    keys: bool = False
    join: str = 'mean'

    def __post_init__(self) -> None:
        check('neck.queries.learned', self.learned, kind=int, least=0, most=16)
        for name in ('mean', 'max', 'cls_token', 'keys'):
            check(f'neck.queries.{name}', getattr(self, name), choices=(True, False))
        check('neck.queries.join', self.join, choices=('mean', 'concat'))
        if not self.count:
            raise UserError(
                'neck.queries names none. Fix: learned=1, mean=True or max=True.'
            )

    @property
    def count(self) -> int:
        """How many tokens are added."""
        return self.learned + self.mean + self.max


class QueryTokens(nn.Module):
    """Adds queries after an encoder's tokens.

    Args:
        fields (dict): Fields of :class:`FewQueries`.
        neck (LLMBlockNeck): It has its block.

    Raises:
        UserError: A field has no such value or does not go with the neck's.
    """

    def __init__(self, fields: Any, neck: Any) -> None:
        super().__init__()
        require(
            fields is not None,
            "neck.queries is missing, which neck.out_type='query' reads. Fix: "
            'neck.queries=dict(learned=1), or another neck.out_type.',
        )
        self.fields = build_from(FewQueries, fields, 'neck.queries')
        self.extra = neck.num_extra_tokens
        source = getattr(neck.block, 'source', {})
        self.is_placed = bool(source.get('rotary') or source.get('window'))
        require(
            not neck.keep_others,
            "neck.keep_others=True does not go with neck.out_type='query', which has no map. "
            'Fix: neck.keep_others=False.',
        )
        if self.fields.cls_token:
            check(
                'neck.num_extra_tokens with queries.cls_token',
                self.extra,
                kind=int,
                least=1,
            )
        if neck.train_only is not None:
            raise UserError(
                "neck.branch and neck.train_queries do not go with out_type='query'."
            )
        if suffix := getattr(neck.block, 'causal_suffix', 0):
            require(
                suffix == self.fields.count,
                f"block.causal_suffix={suffix} with neck.out_type='query' must be the number of "
                f'queries. Fix: block.causal_suffix={self.fields.count}.',
            )
            require(
                self.fields.keys,
                f'neck.queries.keys=False with block.causal_suffix={suffix}: queries that are no '
                'keys cannot read each other. Fix: neck.queries.keys=True.',
            )
        if self.fields.learned:
            start = torch.empty(self.fields.learned, neck.in_channels)
            self.tokens = nn.Parameter(nn.init.trunc_normal_(start, std=0.02))

    def forward(
        self, x: Tensor, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Queries]:
        """Add the queries.

        Args:
            x (Tensor): ``[B, N, C]``.
            padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.

        Returns:
            tuple: Tokens ``[B, N + K, C]``, their padding mask, and which of them to
                compute.
        """
        (batch, n, _), fields, count = x.shape, self.fields, self.fields.count
        rest, added = x[:, self.extra :], []
        checked = self.is_placed and not torch.compiler.is_compiling()
        if checked and padding_mask is not None and padding_mask[:, -1].any():
            raise UserError(
                "neck.out_type='query' comes after padding, and block.rotary or a window counts "
                'the tokens between. Fix: block.rotary=False and window=False, or no padding.'
            )
        if fields.learned:
            added.append(self.tokens.to(x.dtype).expand(batch, -1, -1))
        if fields.mean:
            added.append(mean_of_tokens(rest, padding_mask, self.extra)[:, None])
        if fields.max:
            if padding_mask is not None:
                check_padding(padded := padding_mask[:, self.extra :])
                rest = rest.masked_fill(padded[..., None], torch.finfo(rest.dtype).min)
            added.append(rest.amax(dim=1, keepdim=True))
        if padding_mask is not None or not fields.keys:
            if padding_mask is None:
                padding_mask = x.new_zeros(batch, n, dtype=torch.bool)
            hidden = padding_mask.new_full((batch, count), not fields.keys)
            padding_mask = torch.cat([padding_mask, hidden], dim=1)
        queries: Queries = slice(n, None)
        if fields.cls_token:
            read = [0, *range(n, n + count)]
            queries = torch.tensor(read, device=x.device).expand(batch, -1)
        return torch.cat([x, *added], dim=1), padding_mask, queries

    def join(self, out: Tensor) -> Tensor:
        """``[B, Q, C] -> [B, C]`` or ``[B, Q * C]``."""
        return out.mean(dim=1) if self.fields.join == 'mean' else out.flatten(1)


def check_shuffle(neck: Any) -> None:
    """Refuse a token order that has no effect.

    Raises:
        UserError: The block does not depend on the order, or the neck draws tokens by
            it.
    """
    source = getattr(neck.block, 'source', {})
    if not (source.get('causal') or source.get('rotary') or source.get('window')):
        raise UserError(
            'neck.shuffle_tokens=True has no effect: the block is neither causal nor rotary. Fix: '
            'block.causal=True or block.rotary=True.'
        )
    if neck.train_only is not None:
        raise UserError(
            'neck.branch and neck.train_queries do not go with shuffle_tokens=True.'
        )


def shuffle(
    neck: Any, x: Tensor, padding_mask: Tensor | None, queries: Queries
) -> tuple[Tensor, Tensor | None, Queries]:
    """Bring the tokens of each sample into a random order: drawn anew in training, else fixed.

    Args:
        neck (LLMBlockNeck): Its class and register tokens keep their places.
        x (Tensor): ``[B, N, C]``.
        padding_mask (Tensor, optional): Bool ``[B, N]``.
        queries: The tokens that are read, in the original order.

    Returns:
        tuple: Tokens, padding mask, and the queries' places among them.
    """
    (batch, n, _), extra = (
        x.shape,
        max(neck.num_extra_tokens, neck.out_type == 'cls_token'),
    )
    if neck.training:
        keys = torch.rand(batch, n - extra, device=x.device)
    else:
        generator = torch.Generator().manual_seed(n)
        keys = torch.rand(n - extra, generator=generator).to(x.device).expand(batch, -1)
    first = torch.arange(extra, device=x.device).expand(batch, -1)
    order = torch.cat([first, extra + keys.argsort(dim=1)], dim=1)
    places = order.argsort(dim=1)
    x = x.gather(1, order[..., None].expand_as(x))
    mask = None if padding_mask is None else padding_mask.gather(1, order)
    if isinstance(queries, Tensor):
        return x, mask, places.gather(1, queries)
    return x, mask, places if queries is None else places[:, queries]
