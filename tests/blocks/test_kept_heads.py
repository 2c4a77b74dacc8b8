"""``heads``: a block without some of its heads equals one whose outputs of these are zero."""

import random

import pytest
import torch
from safetensors.torch import load_file, save_file

import lm4ve
from lm4ve.blocks import LLMBlock
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.release.states import frozen_state, trained_state
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import FAMILIES, write_huggingface

HEADS = 4
# Those that differ in how heads are projected, normed, grouped, gated or capped.
LAYOUTS = (
    'llama llama-gqa llama-bias opt opt-350m bert albert t5 gpt_neo qwen3 gemma4_text '
    'gemma4-keys-as-values'
).split()
#: Those whose norms of queries and keys round to float32 in a float64 block, too.
NORMS_IN_FP32 = ('gemma4_text', 'gemma4-keys-as-values')
ROTARY = 'llama llama-gqa qwen3 gemma4_text'


def without_other_heads(block: LLMBlock, kept: list[list[int]]) -> LLMBlock:
    """Let hooks zero the outputs of heads before the output projections read them."""
    for layer, heads in zip(block.layers, kept, strict=True):
        is_kept = torch.zeros(HEADS, 1)
        is_kept[list(heads)] = 1

        def zero(_, inputs, is_kept=is_kept):
            out = inputs[0].unflatten(-1, (HEADS, -1)) * is_kept.to(inputs[0].dtype)
            return (out.flatten(-2),)

        layer.o_proj.register_forward_pre_hook(zero)
    return block


@pytest.mark.parametrize('family', LAYOUTS)
def test_the_outputs_of_other_heads_are_zero(family, checkpoints):
    rng = random.Random(family)
    path = checkpoints(family)
    kept = [sorted(rng.sample(range(HEADS), rng.randint(1, HEADS))) for _ in range(2)]
    options = dict(layers=[0, 1], causal=rng.random() < 0.5)
    options['rotary'] = family in ROTARY.split()
    block = LLMBlock(path, heads=kept, **options)
    expected = without_other_heads(LLMBlock(path, **options), kept)
    x = torch.randn(2, 6, block.embed_dims, generator=torch.Generator().manual_seed(0))
    padding_mask = torch.arange(6) >= torch.tensor([[6], [4]])
    if family in NORMS_IN_FP32:
        assert_equal_but_for_rounding(
            block(x, padding_mask)[0], expected(x, padding_mask)[0], block
        )
        return
    x, block, expected = x.double(), block.double(), expected.double()
    for queries in (None, slice(1, 3)):
        found = block(x, padding_mask, queries)
        torch.testing.assert_close(
            found[0], expected(x, padding_mask, queries)[0], rtol=1e-7, atol=1e-9
        )


@pytest.mark.parametrize('kept', [[1], [0, 1], [0, 2, 3]], ids=str)
def test_heads_have_the_language_models_numbers_where_keys_are_tiled(kept, tmp_path):
    """Here the columns of the other heads are zero in the file itself."""
    sizes = dict(num_attention_heads=HEADS, num_key_value_heads=2)
    folder = write_huggingface(tmp_path / 'llm', 'llama', **sizes)
    block = LLMBlock(str(folder), heads=kept, kv_heads='tiled').double()
    file = folder / 'model.safetensors'
    state = load_file(file)
    for name in state:
        if name.endswith('o_proj.weight'):
            for head in set(range(HEADS)) - set(kept):
                state[name].unflatten(1, (HEADS, -1))[:, head] = 0
    save_file(state, file, metadata={'format': 'pt'})
    expected = LLMBlock(str(folder), kv_heads='tiled').double()
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    torch.testing.assert_close(block(x), expected(x))


@pytest.mark.parametrize('heads', [[1], [0, 2], [0, 1, 3]], ids=str)
@pytest.mark.parametrize('low_rank', ['fold', 'absorb'])
def test_low_rank_and_fusing_read_the_kept_heads(heads, low_rank, checkpoints):
    path = checkpoints('llama-gqa')
    necks = []
    for method in ('off', low_rank):
        block = dict(type='LLMBlock', checkpoint=path, heads=heads)
        torch.manual_seed(0)
        options = dict(out_type='cls_token', low_rank=method)
        necks.append(LLMBlockNeck(8, block, **options).double().eval())
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    expected = necks[0](x)
    torch.testing.assert_close(necks[1](x), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(lm4ve.fuse(necks[1])(x), expected, rtol=1e-6, atol=1e-7)


TRAINED = [
    dict(trainable='norms'),
    dict(trainable='lora'),
    dict(trainable='lora', lora=dict(targets=['k_proj', 'mlp'], r=2)),
]


@pytest.mark.parametrize('fields', TRAINED, ids=str)
def test_no_training_brings_a_head_back(fields, checkpoints):
    path = checkpoints('llama-gqa')
    block = LLMBlock(path, heads=[2], **fields)
    whole = without_other_heads(LLMBlock(path, **fields), [[2]])
    x = torch.randn(2, 5, 32)
    weights = torch.randn(2, 5, 32)
    for each in (block, whole):
        optimizer = torch.optim.SGD(each.parameters(), lr=1.0)
        (each(x) * weights).sum().backward()
        optimizer.step()
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(block.get_parameter(name), parameter)
    torch.testing.assert_close(block(x), whole(x), rtol=1e-4, atol=1e-5)


REFUSED = [
    (dict(trainable='all'), "block.heads with block.trainable='all'"),
    (dict(trainable='lora', lora=dict(targets='all-linear')), 'targets has o_proj'),
    (dict(trainable='lora', lora=dict(targets=['q_proj', 'o_proj'])), 'has o_proj'),
]


@pytest.mark.parametrize(('fields', 'words'), REFUSED, ids=str)
def test_an_output_projection_that_trains_is_refused(fields, words, checkpoints):
    path = checkpoints('llama-gqa')
    with pytest.raises(UserError, match=words):
        LLMBlock(path, heads=[2], **fields)
    LLMBlock(path, heads=[0, 1, 2, 3], **fields)  # nothing is left out


def test_weights_are_recorded_as_the_language_models(checkpoints):
    path = checkpoints('llama-gqa')
    whole = LLMBlock(path)
    kept = LLMBlock(path, heads=[1])
    assert kept.source['fingerprint'] == whole.source['fingerprint']
    assert kept.source == {**whole.source, 'heads': [[1]]}


def test_a_checkpoint_of_other_heads_is_refused(checkpoints):
    path = checkpoints('llama-gqa')
    whole = LLMBlock(path).state_dict()
    assert LLMBlock(path).record()['heads'] is None
    # All of them, in any order, are no choice.
    LLMBlock(path, heads=[3, 2, 1, 0]).load_state_dict(whole)
    kept = LLMBlock(path, heads=[3, 1]).state_dict()
    assert LLMBlock(path, heads=[3, 1]).record()['heads'] == [[1, 3]]
    LLMBlock(path, heads=[1, 3]).load_state_dict(kept)
    for heads, state in ((None, kept), ([1], kept), ([1], whole)):
        with pytest.raises(CheckpointError, match=r'model\.neck\.block\.heads'):
            LLMBlock(path, heads=heads).load_state_dict(state)


@pytest.mark.bitwise
def test_a_release_keeps_the_heads(checkpoints):
    block = LLMBlock(checkpoints('llama-gqa'), heads=[1])
    frozen, _ = frozen_state(block)
    state = {**trained_state(block), **frozen}
    arch = dict(FAMILIES['llama-gqa'])
    loaded = LLMBlock(arch=arch, heads=[1])
    loaded.load_state_dict(state)
    x = torch.randn(2, 5, 32)
    assert torch.equal(loaded(x), block(x))
    with pytest.raises(CheckpointError):
        LLMBlock(arch=arch).load_state_dict(state)


@pytest.mark.parametrize(
    ('heads', 'words'),
    [
        ([4], r'block\.heads \(a layer has 4\)=4'),
        ([-1], r'block\.heads \(a layer has 4\)=-1'),
        ([1, 1], 'names a head twice'),
        ([], 'keeps no head'),
        ([[0], []], 'keeps no head'),
        ([[0]], r'1 lists for 2 layer'),
        ([0, [1]], r'The heads of a layer'),
        (['0', '1'], r'The heads of a layer'),
        ([True], r'A head of block\.heads'),
        (0, r'block\.heads=0'),
        ([0.0, 1], 'The heads of a layer'),
    ],
    ids=str,
)
def test_heads_that_cannot_be_kept_are_refused(heads, words, checkpoints):
    with pytest.raises(UserError, match=words):
        LLMBlock(checkpoints('llama'), layers=[0, 1], heads=heads)


def test_a_family_without_a_spec_is_refused(checkpoints):
    with pytest.raises(UserError, match=r'block\.heads=\[0\] is not for bitnet'):
        LLMBlock(checkpoints('bitnet'), heads=[0])
