"""The fast layer of a family gives what the library's own layer gives, however it is used.

A block has two ways to run a layer: ours for families with a spec, the library's own for
all others. Where a family has both, they must be one function.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from lm4ve.blocks import LLMBlock, language_model
from lm4ve.blocks.host_layer import HostLayer
from lm4ve.blocks.layer import LLMLayer
from lm4ve.errors import UserError
from tests.helpers.blocks.inputs import right_padding, tokens
from tests.helpers.blocks.reference import WITH_ROTARY
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import FAST

#: Variants whose own layer no block can be made of -> the reason.
NOT_BY_THEIR_OWN = {
    'PanguEmbedded': 'Unrecognized configuration class',
    'PanguEmbedded-without-bias': 'Unrecognized configuration class',
    'albert-shared': 'exactly one list',
    'gemma4_text': 'shared_kv_states',
    'gemma4-keys-as-values': 'shared_kv_states',
    'gpt_neo': 'attention.bias',
    't5': 'exactly one list',
    'mt5': 'exactly one list',
}
QUERIES = {
    'all tokens': None,
    'the first token': slice(0, 1),
    'two of each sample': torch.tensor([[5, 0], [2, 2]]),
}


def own_block(monkeypatch, path: str, **options: Any) -> LLMBlock:
    """Build a block of the library's own layers, also for a family with a spec."""
    with monkeypatch.context() as patch:
        patch.setattr(language_model, 'layer_spec', lambda config: None)
        return LLMBlock(path, **options)


def outputs_of(block: LLMBlock, padding: Tensor | None) -> dict[str, Tensor]:
    """Run a block for each of :data:`QUERIES`; what is padding becomes zero."""
    outputs = {}
    for name, queries in QUERIES.items():
        out = block(tokens(), padding, queries)
        if padding is not None:
            means_nothing = padding
            if isinstance(queries, slice):
                means_nothing = padding[:, queries]
            elif queries is not None:
                means_nothing = padding.gather(1, queries)
            out = out.masked_fill(means_nothing[..., None], 0)
        outputs[name] = out
    return outputs


@pytest.mark.parametrize('variant', FAST)
def test_both_layers_give_the_same(checkpoints, monkeypatch, variant):
    path = checkpoints(variant)
    if variant in NOT_BY_THEIR_OWN:
        with pytest.raises(UserError, match=NOT_BY_THEIR_OWN[variant]):
            own_block(monkeypatch, path)
        return
    for index in (0, 1):
        for causal in (False, True):
            for rotary in {False, variant in WITH_ROTARY}:
                options = dict(layers=(index,), causal=causal, rotary=rotary)
                ours = LLMBlock(path, **options)
                own = own_block(monkeypatch, path, **options)
                assert isinstance(ours.layers[0], LLMLayer)
                assert isinstance(own.layers[0], HostLayer)
                if variant != 'albert':  # whose layers have other names in their groups
                    assert own.source['fingerprint'] == ours.source['fingerprint']
                assert (own.final_norm is None) == (ours.final_norm is None)
                for padding in (None, right_padding()):
                    expected = outputs_of(ours, padding)
                    for name, out in outputs_of(own, padding).items():
                        assert_equal_but_for_rounding(out, expected[name], ours)
