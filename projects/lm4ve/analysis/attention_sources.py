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
from lm4ve.tasks.base.analysis import Layout, TaskAnalysis, Watched

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
        modules (list[nn.Module]): Those that may compute it; the last that runs counts.
        watched (Watched, optional): How its task reads it.
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

    Args:
        model (nn.Module): The model.
        necks (Sequence[LLMBlockNeck]): Its necks.
        watched (Sequence[Watched]): What its task watches.
    """
    in_necks = set()
    for neck in necks:
        in_necks.update(neck.modules())
    encoder = []
    for name, module in encoder_attentions(model):
        if module not in in_necks and not name.startswith(_OTHERS):
            encoder.append(module)
    sources = [AttentionSource('encoder', encoder)]
    if necks:
        # A control in the block's place has no layers, and the library's own layers do
        # not name their projections.
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
    task: TaskAnalysis,
    calls: Calls,
    layout_of: LayoutOf,
) -> dict[str, Attention]:
    """Recompute rows of attention; a module whose tokens have no place gives none.

    Args:
        sources (Sequence[AttentionSource]): What to recompute.
        model (nn.Module): The model.
        task (TaskAnalysis): Chooses the rows.
        calls (Calls): What the modules were called with.
        layout_of (Callable): Places tokens.
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
            own = _recompute(name, module, is_block, inputs, call, task, layout_of)
        if own is not None:
            attention[source.label] = own
    return attention


def _read_watched(
    watched: Watched, name: str, module: nn.Module, inputs: Any, call: RecordedCall
) -> Attention:
    """Let a task read an attention of its own."""
    rows = watched.read(module, inputs, call.arguments)
    placed = rows.weights[..., rows.layout.prefix :]
    return Attention(name, placed, watched.row, rows.layout, rows.titles)


def _recompute(
    name: str,
    module: Any,
    is_block: bool,
    inputs: Any,
    call: RecordedCall,
    task: TaskAnalysis,
    layout_of: LayoutOf,
) -> Attention | None:
    """Recompute one row from a module's input; None where its tokens have no place."""
    x = call.input
    if not getattr(module, 'batch_first', True):
        x = x.transpose(0, 1)
    layout = layout_of(name, x.shape[1])
    if layout is None:
        return None
    row, words = task.attention_row(layout, inputs)
    padding_mask = layout.padding_mask
    if is_block:
        mask = call.arguments.get('mask')
        rotary = call.arguments.get('rotary')
        weights = llm_attention_row(module, x, mask, rotary, row, padding_mask)
    else:
        weights = attention_row(module, x, row, padding_mask)
    return Attention(name, weights[..., layout.prefix :], words, layout)
