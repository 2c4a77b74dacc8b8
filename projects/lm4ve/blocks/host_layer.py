"""One layer of a language model that has no spec: ``transformers``' own layer.

``layer.py`` joins the parts of a layer that a spec names. A family without a spec runs
here as the library wrote its layer: it gets an explicit mask and rotary tables by which
no channel turns, and it computes all tokens.

Its attention is torch's fused one where that gives the same. At 1,568 tokens and 32
heads a layer then takes a fifth of the memory and three quarters of the time on a CPU.
The mask stays explicit where all tokens see all: the library takes None for causal, and
nothing is gained by it.

``host_family.py`` finds the layers of such a family, and ``host_trial.py`` tries each
one before a block is made of it, since nobody here has read them.
"""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm4ve.blocks.tokens import Queries, take_tokens
from lm4ve.errors import CheckpointError

#: What a layer's ``forward`` is given where it takes it.
GIVEN_ARGUMENTS = ('attention_mask', 'position_embeddings', 'position_ids', 'alibi')

#: What a family's rotary module returns: cos and sin, in its own order and width, or
#: complex numbers.
OwnTables = tuple[Tensor, ...] | Tensor


class HostLayer(nn.Module):
    """A layer of ``transformers`` as a visual encoder layer.

    The library's layer stays in eval mode, also where it trains, so that the language
    model's dropout, router noise and gradient checkpointing stay off.

    Args:
        layer (nn.Module): The library's layer with its weights.
        index (int): Which layer of its model it is.
        rotary (HostRotary, optional): Makes the tables that the layer takes; None if
            the family has no rotary embedding.
        uses_rotary (bool): Whether the library's model gives this layer tables.

    Attributes:
        computes_all_tokens (bool): The library's layer computes all tokens, of which
            the queries are taken afterwards.
    """

    computes_all_tokens = True
    #: ``block.kv_heads`` has no effect here, and is refused.
    shares_kv_heads = False

    def __init__(
        self,
        layer: nn.Module,
        index: int,
        rotary: 'HostRotary | None',
        uses_rotary: bool = False,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.uses_rotary = uses_rotary
        self.arguments = _accepted_arguments(layer)
        # What the layer gets where its queries and keys must not turn.
        self.identity: OwnTables | None = None
        if rotary is not None:
            self.identity = rotary.identity(index)
        self.train(self.training)

    def train(self, mode: bool = True) -> 'HostLayer':
        """Set the mode of this module and of adapters; the library's layer stays in eval mode."""
        super().train(mode)
        self.layer.eval()
        for part in self.layer.modules():
            if hasattr(part, 'lora_A'):
                part.train(mode)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Refuse weights that were trained in the fast layer, whose parts have other names.

        Raises:
            CheckpointError: There are such weights. Before version 0.1.0 more families
                had the fast layer.
        """
        for name in state_dict:
            is_own = name.startswith(f'{prefix}layer.')
            if name.startswith(prefix) and not is_own:
                raise CheckpointError(
                    f"The checkpoint has '{name}', trained in a layer that this family no longer "
                    'has: it runs by its own layer. Fix: train anew, or use the version of '
                    'lm4ve that wrote it.'
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        queries: Queries = None,
        rotary: OwnTables | None = None,
    ) -> Tensor:
        """Run the layer on all tokens, then take the queries.

        Args:
            x (Tensor): ``[B, N, D]``.
            mask (Tensor, optional): Bool, broadcastable to ``[B, 1, N, N]``, True where
                a token may look. It has the rows of all tokens, whatever the queries
                are.
            queries: Which tokens to return: None, a slice, or ``[B, Q]``.
            rotary (tuple[Tensor, ...] | Tensor, optional): What :class:`HostRotary`
                returns. None: no channel turns, and all tokens have position 0. A layer
                without rotary embedding gets the positions alone.

        Returns:
            Tensor: ``[B, Q, D]``.
        """
        if x.shape[0] == 0:
            return take_tokens(x, queries)  # the library's reshapes need a sample
        positions = torch.arange(x.shape[1], device=x.device)[None]
        if rotary is None:
            positions = torch.zeros_like(positions)
        tables = rotary
        if rotary is None or not self.uses_rotary:
            tables = _repeat(self.identity, x.shape[1])
        values = dict(
            attention_mask=additive_mask(mask, x),
            position_embeddings=_place(tables, x),
            position_ids=positions,
            alibi=None,
        )
        out = self.layer(x, **{name: values[name] for name in self.arguments})
        if isinstance(out, (tuple, list)):
            out = out[0]  # what follows is routing, attention weights or a cache
        return take_tokens(out, queries)


def _accepted_arguments(layer: nn.Module) -> list[str]:
    """Return the names in :data:`GIVEN_ARGUMENTS` that a layer's ``forward`` takes."""
    signature = inspect.signature(layer.forward)
    accepted = [name for name in GIVEN_ARGUMENTS if name in signature.parameters]
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    takes_more = inspect.Parameter.VAR_KEYWORD in kinds
    if takes_more and 'position_embeddings' not in accepted:
        accepted.append('position_embeddings')  # some layers only hand the tables on
    return accepted


def use_fused_attention(layer: nn.Module) -> None:
    """Let a layer call torch's fused attention, in place.

    A layer that does not look up its attention in its config stays as it is.

    Args:
        layer (nn.Module): The library's layer, whose modules share no config with
            those of other layers.
    """
    for module in layer.modules():
        config = getattr(module, 'config', None)
        if isinstance(config, PretrainedConfig):
            config._attn_implementation = 'sdpa'


def additive_mask(mask: Tensor | None, x: Tensor) -> Tensor:
    """Write a mask as the library's attention adds it to the scores.

    A token that may look nowhere, as padding on the left of a causal mask, looks
    everywhere: its output means nothing, but must be finite.

    Args:
        mask (Tensor, optional): Bool, broadcastable to ``[B, 1, N, N]``; None: all
            tokens see all.
        x (Tensor): The layer's input ``[B, N, D]``, for the sizes and the dtype.

    Returns:
        Tensor: ``[B, 1, N, N]``.
    """
    batch, length, _ = x.shape
    if mask is None:
        return x.new_zeros(1, 1, length, length).expand(batch, -1, -1, -1)
    added = x.new_zeros(batch, 1, length, length)
    looks_nowhere = ~mask.any(dim=-1, keepdim=True)
    hidden = ~(mask | looks_nowhere)
    return added.masked_fill(hidden, torch.finfo(x.dtype).min)


def _repeat(tables: OwnTables | None, length: int) -> OwnTables | None:
    """Expand the tables of one token to ``length`` tokens: ``[..., 1, r] -> [..., N, r]``.

    None, of a family without rotary embedding, stays None.
    """
    if tables is None:
        return None
    if isinstance(tables, Tensor):
        return tables.expand(*tables.shape[:-2], length, -1)
    return tuple(t.expand(*t.shape[:-2], length, -1) for t in tables)


def _place(tables: OwnTables | None, x: Tensor) -> OwnTables | None:
    """Move tables to the device of the tokens ``x``; None stays None.

    cos and sin are also cast to the dtype of ``x``. Complex tables keep theirs. Nothing
    waits for a GPU to finish what it computes before.
    """
    if tables is None:
        return None
    if isinstance(tables, Tensor):
        return tables.to(x.device, non_blocking=True)
    return tuple(table.to(x, non_blocking=True) for table in tables)


class HostRotary:
    """The rotary tables of a family in the form that its own layers take, in fp32.

    This is no module, so that the tables stay fp32 whatever the block is cast to.

    Args:
        module (nn.Module): The library's rotary module, on the CPU.
        layer_types (list[str], optional): The type of each layer, where the module
            makes tables by type.
    """

    def __init__(self, module: nn.Module, layer_types: list[str] | None) -> None:
        self.module = module
        self.layer_types = layer_types

    def __call__(self, layer: int, length: int, device: torch.device) -> OwnTables:
        """Return the tables of the positions from 0 to ``length - 1`` for a layer."""
        tables = self._tables(layer, length)
        # Without waiting for a GPU to finish what it computes before.
        if isinstance(tables, Tensor):
            return tables.to(device, non_blocking=True)
        return tuple(table.to(device, non_blocking=True) for table in tables)

    def identity(self, layer: int) -> OwnTables:
        """Return tables of one token by which no channel turns.

        At position 0 every angle is 0, so cos is 1 and sin is 0. Some families multiply
        both by a constant (YaRN), which is divided out: it is the largest entry, since
        cos holds nothing else and sin only zeros.

        Args:
            layer (int): Which layer of the model, for families whose tables depend on
                it.

        Returns:
            tuple[Tensor, ...] | Tensor: cos and sin in the family's order, each ``[1,
            1, r]``; or complex ones, where the family multiplies by ``cos + i sin``.
        """
        tables = self._tables(layer, length=1)
        if isinstance(tables, Tensor):  # complex
            return torch.ones_like(tables)
        # Which of the two is cos differs by family; sin has only zeros.
        largest_entries = [table.abs().max() for table in tables]
        factor = torch.stack(largest_entries).max()
        return tuple(table / factor for table in tables)

    @torch.no_grad()
    def _tables(self, layer: int, length: int) -> OwnTables:
        """Return the library's tables of the positions from 0 on, on the CPU."""
        arguments: list[Any] = [torch.zeros(1), torch.arange(length)[None]]
        if self.layer_types is not None:
            arguments.append(self.layer_types[layer])
        # A copy, since some modules store the longest sequence that they were called
        # with.
        tables: OwnTables = copy.deepcopy(self.module)(*arguments)
        return tables
