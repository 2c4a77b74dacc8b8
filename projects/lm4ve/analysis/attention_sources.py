"""Which modules of a model attention is recomputed from, and the rows that they give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lm4ve.analysis.activations import Attention
from lm4ve.analysis.attention import (
    attention_row,
    encoder_attentions,
    llm_attention_row,
)
from lm4ve.analysis.recording import Calls, RecordedCall
from lm4ve.blocks.layer import LLMLayer
from lm4ve.necks import LLMBlockNeck
from lm4ve.tasks.base.layouts import Layout, Watched
from lm4ve.tasks.base.protocol import TaskProtocol

#: Parts of a model whose attention is not the visual encoder's.
_OTHERS = ('decoder', 'head', 'cls_head', 'text_encoder')
#: The label of the language model's attention; that of the visual encoder is 'encoder'.
_BLOCK = 'block'

#: Returns the layout of a module's tokens, by its name and their number; None where
#: they have no place.
LayoutOf = Callable[[str, int], Layout | None]


@dataclass
class AttentionSource:
    """An attention to recompute.

    Attributes:
        label (str): Its name on a sheet.
        modules (list[nn.Module]): The modules that may compute it, for example all blocks
            of an encoder. The one that runs last is shown.
        watched (Watched, optional): How the task reads it; None: it is recomputed here.
    """

    label: str
    modules: list[nn.Module]
    watched: Watched | None = None

    def last_run(self, calls: Calls) -> nn.Module | None:
        """Return the module that ran last, or None if none did."""
        for module in reversed(calls):
            if module in self.modules:
                return module
        return None


def list_sources(
    model: nn.Module, necks: Sequence[LLMBlockNeck], watched: Sequence[Watched]
) -> list[AttentionSource]:
    """List the attentions of a model that can be recomputed.

    They are that of the visual encoder, with a neck that of the last neck's last layer,
    and those that the task reads itself.

    Args:
        model (nn.Module): The model.
        necks (Sequence[LLMBlockNeck]): Its necks.
        watched (Sequence[Watched]): The attentions that the task reads itself.
    """
    in_necks: set[nn.Module] = set()
    for neck in necks:
        in_necks.update(neck.modules())
    encoder = []
    for name, module in encoder_attentions(model):
        if module not in in_necks and not name.startswith(_OTHERS):
            encoder.append(module)
    sources = [AttentionSource('encoder', encoder)]
    if necks:
        # Only our own layers can be read. A control in the block's place has no layers,
        # and transformers' layers name their projections differently.
        layers = list(getattr(necks[-1].block, 'layers', ()))
        last: list[nn.Module] = []
        if layers and isinstance(layers[-1], LLMLayer):
            last.append(layers[-1])
        sources.append(AttentionSource(_BLOCK, last))
    for own in watched:
        module = model.get_submodule(own.module)
        sources.append(AttentionSource(own.label, [module], own))
    return sources


def recompute_attention(
    sources: Sequence[AttentionSource],
    model: Any,
    protocol: TaskProtocol,
    calls: Calls,
    layout_of: LayoutOf,
) -> dict[str, Attention]:
    """Recompute a row of each attention from the recorded input of its module.

    Args:
        sources (Sequence[AttentionSource]): The attentions.
        model (nn.Module): The model.
        protocol (TaskProtocol): The task's, which chooses the row.
        calls (Calls): The recorded calls of modules.
        layout_of (Callable): Returns the layout of a module's tokens.

    Returns:
        dict[str, Attention]: By label. Missing are those of which no module ran, or
        whose tokens have no place.
    """
    names = {module: name for name, module in model.named_modules()}
    inputs = calls[model.data_preprocessor].output['inputs']
    attention = {}
    for source in sources:
        module = source.last_run(calls)
        if module is None:
            continue
        name = names[module]
        call = calls[module]
        if source.watched is not None:
            own: Attention | None = _read_watched(
                source.watched, name, module, inputs, call
            )
        else:
            is_block = source.label == _BLOCK
            own = _recompute(name, module, is_block, inputs, call, protocol, layout_of)
        if own is not None:
            attention[source.label] = own
    return attention


def _read_watched(
    watched: Watched, name: str, module: nn.Module, inputs: Any, call: RecordedCall
) -> Attention:
    """Return an attention that the task itself reads from a module's call.

    Args:
        watched (Watched): The task's description of it, with the function that reads.
        name (str): The module's name.
        module (nn.Module): The module.
        inputs: The preprocessed batch.
        call (RecordedCall): The module's call.
    """
    rows = watched.read(module, inputs, call.arguments)
    placed = rows.weights[..., rows.layout.prefix :]
    return Attention(name, placed, watched.row, rows.layout, rows.titles)


def _recompute(
    name: str,
    module: Any,
    is_block: bool,
    inputs: Any,
    call: RecordedCall,
    protocol: TaskProtocol,
    layout_of: LayoutOf,
) -> Attention | None:
    """Recompute one row of a module's attention; None if its tokens have no place.

    Args:
        name (str): The module's name.
        module (nn.Module): A layer of the language model, or an encoder's attention.
        is_block (bool): Whether it is a layer of the language model.
        inputs: The preprocessed batch.
        call (RecordedCall): The module's call.
        protocol, layout_of: See :func:`recompute_attention`.
    """
    x = call.input
    if not getattr(module, 'batch_first', True):
        x = x.transpose(0, 1)
    layout = layout_of(name, x.shape[1])
    if layout is None:
        return None
    row, words = protocol.attention_row(layout, inputs)
    padding_mask = layout.padding_mask
    if is_block:
        mask = call.arguments.get('mask')
        rotary = call.arguments.get('rotary')
        weights = llm_attention_row(module, x, mask, rotary, row, padding_mask)
    else:
        weights = attention_row(module, x, row, padding_mask)
    return Attention(name, weights[..., layout.prefix :], words, layout)
