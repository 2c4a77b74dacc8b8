"""'tiled': query head j reads head j % K of keys and values, as MedVisionLlama's code does."""

import copy
import random
import sys

import pytest
import torch
from torch import Tensor

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.host_family import HostFamily
from lm4ve.blocks.host_layer import HostLayer
from lm4ve.blocks.record import accept_records
from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.release.states import frozen_state, trained_state
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import (
    FAMILIES,
    FAST,
    config_of,
    decoder_layers,
    random_model,
    write_huggingface,
)
from tests.helpers.old_records import old_block_record

HEADS = 8
KV_HEADS = 2
SIZES = dict(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=4)
OPTIONS = [dict(), dict(rotary=True, causal=True), dict(trainable='all')]


def shares_heads(variant: str) -> bool:
    """Return whether several query heads of a variant read one of several key heads."""
    config = config_of(variant)
    heads = config.num_attention_heads
    kv_heads = getattr(config, 'num_key_value_heads', None)
    return kv_heads is not None and 1 < kv_heads < heads


SHARING = [variant for variant in FAST if shares_heads(variant)]
#: Their own layers need arguments that no block has, see ``test_own_layers.py``.
NOT_BY_THEIR_OWN = ('gemma4_text', 'gemma4-keys-as-values')
#: The library lacks openPangu's model.
PANGU = ('PanguEmbedded', 'PanguEmbedded-without-bias')
REFERENCES = [
    variant for variant in SHARING if variant not in (*NOT_BY_THEIR_OWN, *PANGU)
]


def repeated(weight: Tensor) -> Tensor:
    """Return a weight or bias of K heads as one of all heads, in which head j is j % K."""
    repeats = [HEADS // KV_HEADS] + [1] * (weight.dim() - 1)
    return weight.repeat(repeats)


def tile_kv(x: Tensor, group: int) -> Tensor:
    """Repeat the heads ``[B, K, N, d]`` as a whole: the reference."""
    return torch.cat([x] * group, dim=1)


@pytest.fixture(params=['llama', 'qwen2'])
def folders(request, tmp_path):
    """A language model with shared heads, and one in which each head has its own copy."""
    shared = write_huggingface(tmp_path / 'shared', request.param, **SIZES)
    model = random_model(request.param, **SIZES)
    sizes = dict(SIZES, num_key_value_heads=HEADS)
    expanded = type(model)(random_model(request.param, **sizes).config)
    state = model.state_dict()
    for name in state:
        if '.k_proj.' in name or '.v_proj.' in name:
            state[name] = repeated(state[name])
    expanded.load_state_dict(state)
    expanded.save_pretrained(tmp_path / 'expanded')
    return str(shared), str(tmp_path / 'expanded')


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_tiled_heads_read_what_copies_of_them_would(folders, options):
    shared, expanded = folders
    x = torch.randn(2, 5, 32)
    tiled = LLMBlock(shared, kv_heads='tiled', **options)
    expected = LLMBlock(expanded, **options)(x)
    assert_equal_but_for_rounding(tiled(x), expected, tiled)
    grouped = LLMBlock(shared, **options)(x)
    assert (grouped - expected).abs().max() > 0.01


@pytest.mark.parametrize('variant', REFERENCES)
def test_every_family_equals_its_own_layer_with_tiled_keys(
    checkpoints, variant, monkeypatch
):
    """Also with norms and biases of queries and keys."""
    family = HostFamily(config_of(variant))
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    for index in (0, 1):
        own = copy.deepcopy(decoder_layers(random_model(variant))[index])
        host = HostLayer(own, index, family.rotary)
        grouped = host(x)
        with monkeypatch.context() as patched:
            patched.setattr(sys.modules[type(own).__module__], 'repeat_kv', tile_kv)
            expected = host(x)
        assert (grouped - expected).abs().max() > 1e-3
        options = dict(layers=(index,), window=False, final_norm=False)
        block = LLMBlock(checkpoints(variant), kv_heads='tiled', **options)
        assert_equal_but_for_rounding(block(x), expected, block)


@pytest.mark.parametrize('variant', NOT_BY_THEIR_OWN)
def test_the_other_families_read_tiled_keys_too(checkpoints, variant):
    """Their attention is recomputed here, head by head."""
    block = LLMBlock(checkpoints(variant), kv_heads='tiled')
    layer = block.layers[0]
    q = torch.randn(2, 4, 6, layer.head_dim)
    k = torch.randn(2, 2, 6, layer.head_dim)
    v = torch.randn(2, 2, 6, layer.head_dim)
    heads = []
    for j in range(4):
        scores = q[:, j] @ k[:, j % 2].mT * layer.scale
        heads.append(scores.softmax(dim=-1) @ v[:, j % 2])
    expected = torch.stack(heads, dim=1)
    torch.testing.assert_close(layer.attend(q, k, v, None), expected)


@pytest.mark.parametrize('variant', ['llama-gqa', 'qwen3'])
def test_kept_heads_read_tiled_keys(checkpoints, variant):
    rng = random.Random(variant)
    path = checkpoints(variant)
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        kept = sorted(rng.sample(range(4), rng.randint(1, 3)))
        block = LLMBlock(path, kv_heads='tiled', heads=kept)
        expected = LLMBlock(path, kv_heads='tiled')
        is_kept = torch.tensor([[float(head in kept)] for head in range(4)])

        def zero(_, inputs, is_kept=is_kept):
            return ((inputs[0].unflatten(-1, (4, -1)) * is_kept).flatten(-2),)

        expected.layers[0].o_proj.register_forward_pre_hook(zero)
        assert_equal_but_for_rounding(block(x), expected(x), block)


@pytest.mark.parametrize('low_rank', ['off', 'fold', 'auto'])
def test_low_rank_reads_tiled_heads_too(folders, low_rank):
    x = torch.randn(2, 6, 8)
    necks = []
    for folder, kv_heads in zip(folders, ('tiled', 'grouped'), strict=True):
        torch.manual_seed(0)
        block = dict(type='LLMBlock', checkpoint=folder, kv_heads=kv_heads)
        neck = LLMBlockNeck(8, block, low_rank=low_rank, out_type='cls_token')
        necks.append(neck.eval())
    tiled, expected = necks
    assert_equal_but_for_rounding(tiled(x), expected(x), tiled)


def test_absorb_is_for_grouped_heads(folders):
    shared, expanded = folders
    block = dict(type='LLMBlock', checkpoint=shared, kv_heads='tiled')
    with pytest.raises(UserError, match=r"block\.kv_heads='tiled'.*='absorb'"):
        LLMBlockNeck(8, block, low_rank='absorb')
    # Without shared heads nothing is tiled.
    LLMBlockNeck(8, dict(block, checkpoint=expanded), low_rank='absorb')


def test_a_trained_adapter_acts_on_the_language_models_heads(folders):
    """LoRA sees the language model's order, as it does with grouped heads."""
    shared, expanded = folders
    lora = dict(targets=['q_proj', 'o_proj'], r=2)
    options = dict(trainable='lora', lora=lora)
    tiled = LLMBlock(shared, kv_heads='tiled', **options)
    expected = LLMBlock(expanded, **options)
    state = {
        name: torch.randn_like(weight)
        for name, weight in tiled.state_dict().items()
        if name != KEY
    }
    tiled.load_state_dict(state, strict=False)
    expected.load_state_dict(state, strict=False)
    x = torch.randn(2, 5, 32)
    assert_equal_but_for_rounding(tiled(x), expected(x), tiled)


def test_a_checkpoint_of_the_other_order_is_refused_and_of_none_not(folders):
    shared, expanded = folders
    tiled = LLMBlock(shared, kv_heads='tiled').state_dict()
    grouped = LLMBlock(shared).state_dict()
    with pytest.raises(CheckpointError, match="block.kv_heads='tiled'"):
        LLMBlock(shared).load_state_dict(tiled)
    with pytest.raises(CheckpointError, match="block.kv_heads='grouped'"):
        LLMBlock(shared, kv_heads='tiled').load_state_dict(grouped)
    # Without shared heads both are the same, and nothing is recorded.
    alone = LLMBlock(expanded, kv_heads='tiled').state_dict()
    LLMBlock(expanded).load_state_dict(alone)


def of_moved_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with the record that was written when query heads were moved."""
    moved = {**state, 'llm_source': old_block_record(state)}
    del moved[KEY]
    return moved


@pytest.mark.parametrize('trainable', ['all', 'lora'])
def test_trained_weights_in_the_order_of_older_versions_are_refused(folders, trainable):
    shared, _ = folders
    options = dict(kv_heads='tiled', trainable=trainable)
    block = LLMBlock(shared, **options)
    state = block.state_dict()
    LLMBlock(shared, **options).load_state_dict(state)
    moved = of_moved_heads(state)
    with pytest.raises(CheckpointError, match='q_proj.*moved query heads'):
        block.load_state_dict(moved, strict=False)
    with pytest.raises(CheckpointError, match='moved query heads'):
        accept_records(block, moved)
    # What holds no weights of heads, as files of frozen blocks, has no order.
    frozen = LLMBlock(shared, kv_heads='tiled')
    frozen.load_state_dict(of_moved_heads(frozen.state_dict()))
    # Another setting can be accepted, and says nothing of the order.
    grouped = LLMBlock(shared, trainable=trainable).state_dict()
    accept_records(block, grouped)
    block.load_state_dict(grouped)


def test_releases_with_heads_in_the_order_of_older_versions_are_refused(tmp_path):
    folder = str(write_huggingface(tmp_path, 'llama', **SIZES))
    block = LLMBlock(folder, kv_heads='tiled')
    frozen, _ = frozen_state(block)
    state = {**trained_state(block), **frozen}
    arch = dict(FAMILIES['llama'], **SIZES)
    loaded = LLMBlock(arch=arch, kv_heads='tiled')
    with pytest.raises(CheckpointError, match='q_proj.*moved query heads'):
        loaded.load_state_dict(of_moved_heads(state))
    loaded.load_state_dict(state)
    x = torch.randn(2, 5, 32)
    assert_equal_but_for_rounding(loaded(x), block(x), block)


def test_other_words_are_refused(checkpoints):
    with pytest.raises(UserError, match='block.kv_heads'):
        LLMBlock(checkpoints('llama'), kv_heads='tile')
