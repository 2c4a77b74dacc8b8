"""Families without a spec run ``transformers``' own layer, or are refused by name."""

import copy
import inspect

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from lm4ve.blocks import FAMILIES as ROWS
from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.host_family import HostFamily
from lm4ve.blocks.host_layer import HostLayer
from lm4ve.blocks.host_run import behaves_like_norm
from lm4ve.blocks.host_trial import find_defect, fuses_attention
from lm4ve.errors import CheckpointError, UnsupportedModelError, UserError
from lm4ve.necks import LLMBlockNeck
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import (
    FAMILIES,
    config_of,
    decoder_layers,
    random_model,
    write_huggingface,
)
from tests.helpers.own_families import OWN_FAMILIES
from tests.helpers.wrappers import WRAPPERS

WIDTH = 32
#: Layers of the tiny models that have no attention.
WITHOUT_ATTENTION = [
    ('bailing_hybrid', 0),
    ('granitemoehybrid', 0),
    ('kimi_linear', 0),
    ('lara_mini', 0),
    ('lfm2_moe', 0),
    ('lfm3', 0),
    ('minimax', 0),
    ('olmo_hybrid', 0),
    ('qwen3_5_moe_text', 0),
]
RUNNING = [
    (kind, layer)
    for kind in OWN_FAMILIES
    for layer in (0, 1)
    if (kind, layer) not in WITHOUT_ATTENTION
]
LANGUAGE_MODELS = {
    *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    *MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
#: Language models of the installed transformers that are in no table.
OTHERS = sorted(
    kind
    for kind in LANGUAGE_MODELS - {*ROWS, *WRAPPERS}
    if 'text_config' not in CONFIG_MAPPING[kind].sub_configs
)


def tokens(seed: int = 0, length: int = 6, width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, length, width, generator=generator)


def whole_model_call(model, index: int, length: int = 6) -> tuple[Tensor, Tensor, dict]:
    """Run a whole model; return a layer's input, its output and its arguments."""
    layer = decoder_layers(model)[index]
    seen = []

    def keep(module, args, kwargs, output):
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        hidden = next(iter(bound.values()))
        if isinstance(output, (tuple, list)):
            output = output[0]
        seen.append((hidden, output, bound))

    hook = layer.register_forward_hook(keep, with_kwargs=True)
    run_whole_model(model, length)
    hook.remove()
    return seen[0]


def run_whole_model(model, length: int) -> None:
    """Run a model on random tokens of text."""
    generator = torch.Generator().manual_seed(1)
    model(input_ids=torch.randint(3, 32, (1, length), generator=generator))


# --------------------------------------------------------------------- which ones run
@pytest.mark.parametrize('kind, layer', WITHOUT_ATTENTION)
def test_a_layer_without_attention_is_refused_by_its_type(kind, layer):
    with pytest.raises(UnsupportedModelError, match=f"layer {layer} of the type '"):
        LLMBlock(arch=OWN_FAMILIES[kind], layers=(layer,))


@pytest.mark.parametrize('kind', OTHERS)
def test_every_other_language_model_makes_a_block_or_is_refused_by_name(kind):
    fields = dict(OWN_FAMILIES['exaone'], model_type=kind)
    try:
        block = LLMBlock(arch=fields, layers=(0,))
    except UserError as error:
        assert 'has no layer spec, and' in str(error) or kind in str(error)
        return
    # Another name of a family that runs, or one that is newer than the table.
    assert block.source['model_type'] in {kind, *ROWS}
    given = tokens(width=block.embed_dims)
    output = block(given)
    assert output.isfinite().all()
    assert (output - given).abs().max() > 0


# ---------------------------------------------------------------------- what they give
@pytest.mark.parametrize('kind, layer', RUNNING)
def test_a_block_from_disk_equals_the_layer_in_its_whole_model(
    checkpoints, kind, layer
):
    """With its own mask, windows and rotary tables, as the library's model calls it."""
    model = random_model(kind)
    hidden, expected, arguments = whole_model_call(model, layer)
    mask = arguments.get('attention_mask')
    causal = mask is not None and bool((mask[..., 0, -1] < 0).all())
    rotary = HostFamily(config_of(kind)).rotary is not None
    options = dict(layers=(layer,), causal=causal, rotary=rotary, final_norm=False)
    try:
        block = LLMBlock(checkpoints(kind), **options)
    except UserError as error:
        options['window'] = False
        if 'several rotary modules' in str(error):
            pytest.skip('its rotary embedding is refused')
        assert 'block.window' in str(error)
        block = LLMBlock(checkpoints(kind), **options)
    assert_equal_but_for_rounding(block(hidden), expected, block)


@pytest.mark.parametrize('kind', OWN_FAMILIES)
def test_a_final_norm_is_the_last_module_of_its_model(kind):
    block = LLMBlock(arch=OWN_FAMILIES[kind], layers=(1,))
    path = HostFamily(config_of(kind)).find_final_norm()
    assert (block.final_norm is None) == (path == '')
    if not path:
        return
    model = random_model(kind)
    calls = []
    last = decoder_layers(model)[-1]
    hooks = [
        last.register_forward_hook(lambda *_: calls.append('layer')),
        model.get_submodule(path).register_forward_hook(
            lambda *_: calls.append('norm')
        ),
    ]
    run_whole_model(model, 4)
    for hook in hooks:
        hook.remove()
    assert calls == ['layer', 'norm']


@pytest.mark.bitwise
@pytest.mark.parametrize('kind', OWN_FAMILIES)
def test_no_norm_means_that_the_model_returns_what_its_last_layer_does(kind):
    if HostFamily(config_of(kind)).find_final_norm():
        return
    model = random_model(kind)
    _, expected, _ = whole_model_call(model, 1, 4)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 32, (1, 4), generator=generator)
    assert torch.equal(model(input_ids=ids)[0], expected)


@pytest.mark.parametrize('kind', OWN_FAMILIES)
def test_a_config_without_cache_has_the_same_rotary_embedding(kind):
    """44 of 59 families were refused with ``"use_cache": false`` in their config.json."""
    answers = []
    for use_cache in (True, False):
        fields = dict(OWN_FAMILIES[kind], use_cache=use_cache)
        try:
            block = LLMBlock(arch=fields, layers=(1,), rotary=True)
        except UserError as error:
            answers.append(str(error))
        else:
            answers.append(block.source['rotary'])
    assert answers[0] == answers[1]
    assert 'not seen' not in str(answers[0])


def test_a_deep_layer_whose_model_reads_tuples_gets_its_rotary_tables():
    """Its layers return tuples, of which a stand-in's tensor lost a dimension each time."""
    fields = dict(OWN_FAMILIES['gpt_neox_japanese'], num_hidden_layers=6)
    block = LLMBlock(arch=fields, layers=(5,), rotary=True)
    assert block.source['rotary'] is True
    assert block.final_norm is not None


# ------------------------------------------------------------------ what is not seen
def replace_forward(monkeypatch, kind: str, forward) -> None:
    """Let a family's model run ``forward`` in the place of its own."""
    model = random_model(kind)
    monkeypatch.setattr(type(model), 'forward', forward)


@pytest.mark.parametrize('kind', ['exaone', 'gte'])
def test_norms_of_a_model_that_does_not_run_are_neither_taken_nor_left_out(
    kind, monkeypatch
):
    def forward(self, *args, **kwargs):
        raise RuntimeError('Tensor.item() cannot be called on meta tensors')

    replace_forward(monkeypatch, kind, forward)
    fields = OWN_FAMILIES[kind]
    with pytest.raises(UserError, match=r"'.*orm.* is not seen \(RuntimeError: Tensor"):
        LLMBlock(arch=fields)
    block = LLMBlock(arch=fields, final_norm=False)
    assert block.source['final_norm'] is False
    with pytest.raises(UserError, match='rotary tables is not seen .RuntimeError'):
        LLMBlock(arch=fields, final_norm=False, rotary=True)


def test_a_model_that_fails_in_another_way_is_refused_by_name(monkeypatch):
    def forward(self, *args, **kwargs):
        raise KeyError('weights_of_experts')

    replace_forward(monkeypatch, 'exaone', forward)
    message = "'exaone' .*its model does not run .KeyError: 'weights_of_experts'"
    with pytest.raises(UnsupportedModelError, match=message):
        LLMBlock(arch=OWN_FAMILIES['exaone'])


def test_a_norm_that_is_no_module_is_not_left_out(monkeypatch):
    model = random_model('gte')
    own = type(model).forward

    def forward(self, *args, **kwargs):
        output = own(self, *args, **kwargs)
        hidden = output.last_hidden_state
        output.last_hidden_state = nn.functional.layer_norm(hidden, hidden.shape[-1:])
        return output

    LLMBlock(arch=OWN_FAMILIES['gte'])  # which has no final norm
    replace_forward(monkeypatch, 'gte', forward)
    with pytest.raises(UserError, match='block.final_norm=True.*is no module'):
        LLMBlock(arch=OWN_FAMILIES['gte'])
    LLMBlock(arch=OWN_FAMILIES['gte'], final_norm=False)


class GainLessOne(nn.Module):
    """A norm as some families have it, with another name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x):
        x = x * (x.square().mean(dim=-1, keepdim=True) + 1e-3).rsqrt()
        return x * (1 + self.scale)


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(WIDTH)

    def forward(self, x):
        return self.inner(x)


NORMS = [
    nn.LayerNorm(WIDTH),
    nn.LayerNorm(WIDTH, elementwise_affine=False),
    nn.RMSNorm(WIDTH),
    GainLessOne(),
    Holder(),
]
OTHER_MODULES = [
    nn.Identity(),
    nn.Dropout(),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.GELU(),
    nn.Softmax(dim=-1),
    nn.Hardtanh(),
    nn.Linear(WIDTH, WIDTH),
    nn.Embedding(4, WIDTH),
    nn.BatchNorm1d(8),
    nn.LayerNorm((8, WIDTH)),
    nn.LayerNorm(WIDTH // 2),
    nn.ModuleList([nn.LayerNorm(WIDTH)]),
]


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_a_norm_is_known_by_what_it_computes(device):
    for module in NORMS:
        assert behaves_like_norm(copy.deepcopy(module).to(device), WIDTH), module
    for module in OTHER_MODULES:
        assert not behaves_like_norm(copy.deepcopy(module).to(device), WIDTH), module


@pytest.mark.parametrize('kind', OWN_FAMILIES)
def test_tokens_have_no_positions_and_padding_is_not_read(kind):
    block = LLMBlock(arch=OWN_FAMILIES[kind], layers=(1,), trainable='all')
    x, order = tokens(), torch.tensor([3, 1, 5, 0, 2, 4])
    assert_equal_but_for_rounding(block(x[:, order]), block(x)[:, order], block)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    padded = block(x, padding)
    assert_equal_but_for_rounding(padded[1:, :4], block(x[1:, :4]), block)
    assert_equal_but_for_rounding(padded[:1], block(x[:1]), block)


@pytest.mark.parametrize('kind', OWN_FAMILIES)
def test_gradients_are_those_of_the_output(kind):
    """Nothing of a layer runs without gradients, as some routers in eval mode."""
    block = LLMBlock(arch=OWN_FAMILIES[kind], layers=(1,))
    x = tokens().requires_grad_()
    weights = tokens(2)
    direction = tokens(3)
    step = 1e-3
    (gradient,) = torch.autograd.grad((block(x) * weights).sum(), x)
    with torch.no_grad():
        ahead = (block(x + step * direction) * weights).sum()
        behind = (block(x - step * direction) * weights).sum()
    expected = (ahead - behind) / (2 * step)
    torch.testing.assert_close(
        (gradient * direction).sum(), expected, rtol=2e-2, atol=2e-2
    )


class CopiesToDevice(TorchDispatchMode):
    """Notes of each copy from the CPU to the meta device whether it blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocking: list[bool] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        is_copy = func._overloadpacket is torch.ops.aten._to_copy
        if is_copy and out.is_meta and not args[0].is_meta:
            self.blocking.append(not kwargs.get('non_blocking', False))
        return out


@pytest.mark.parametrize('rotary', [False, True])
def test_tables_reach_a_device_without_waiting_for_it(rotary):
    device = torch.device('meta')
    block = LLMBlock(arch=OWN_FAMILIES['exaone'], layers=(1,), rotary=True).to(device)
    x = tokens().to(device)
    tables = None
    with CopiesToDevice() as copies:
        if rotary:
            tables = block.rotary_tables(1, 6, device)
        block.layers[0](x, rotary=tables)
    assert copies.blocking and not any(copies.blocking)


# ---------------------------------------------------------------- what is found out
class Attention(nn.Module):
    """A layer that does nothing wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Linear(WIDTH, WIDTH)

    def scores(self, x: Tensor) -> Tensor:
        return x @ x.transpose(1, 2) / WIDTH

    def forward(self, hidden_states, attention_mask=None):
        scores = self.scores(hidden_states) + attention_mask[:, 0]
        return hidden_states + scores.softmax(dim=-1) @ self.values(hidden_states)


class PositionBias(Attention):
    def scores(self, x):
        places = torch.arange(x.shape[1])
        return super().scores(x) - (places[:, None] - places).abs() / 10


class Convolution(Attention):
    def scores(self, x):
        return super().scores(x + 0.1 * x.roll(1, dims=1))


class OwnCausalMask(Attention):
    def scores(self, x):
        return super().scores(x) + torch.full((x.shape[1],) * 2, -1e9).triu(1)


class IgnoresItsMask(Attention):
    def forward(self, hidden_states, attention_mask=None):
        return super().forward(hidden_states, 0 * attention_mask)


class ReadsNothing(Attention):
    def forward(self, hidden_states, attention_mask=None):
        return hidden_states + self.values(hidden_states)


class OwnWindow(Attention):
    def scores(self, x):
        return super().scores(x) + torch.full((x.shape[1],) * 2, -1e9).triu(4).flip(1)


class MixesSamples(Attention):
    def forward(self, hidden_states, attention_mask=None):
        mixed = hidden_states + 0.1 * hidden_states.cumsum(dim=0)
        return super().forward(mixed, attention_mask)


class ReturnsTheMean(Attention):
    def forward(self, hidden_states, attention_mask=None):
        return super().forward(hidden_states, attention_mask).mean(dim=1)


class ReturnsInfinity(Attention):
    def forward(self, hidden_states, attention_mask=None):
        return super().forward(hidden_states, attention_mask) / 0


DEFECTS = [
    (PositionBias, 'depends on the order of the tokens'),
    (Convolution, 'depends on the order of the tokens'),
    (OwnCausalMask, 'depends on the order of the tokens'),
    (OwnWindow, 'depends on the order of the tokens'),
    (MixesSamples, 'depends on the order of the tokens'),
    (ReadsNothing, 'does not let all tokens read the first one'),
    (IgnoresItsMask, 'reads padding'),
    (ReturnsTheMean, 'does not return a vector for each token'),
    (ReturnsInfinity, 'returns values that are not finite'),
]


@pytest.mark.parametrize('layer, reason', DEFECTS)
def test_a_layer_that_would_be_wrong_in_silence_is_found(layer, reason):
    assert find_defect(HostLayer(layer(), 0, None), WIDTH) == reason


def test_a_layer_without_a_defect_passes():
    assert find_defect(HostLayer(Attention(), 0, None), WIDTH) == ''


class LooksUpItsAttention(Attention):
    """A layer whose fused attention leaves a bias of the scores out, or raises."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.config = PretrainedConfig(attn_implementation='eager')

    def scores(self, x):
        scores = super().scores(x)
        if self.config._attn_implementation == 'eager':
            return 3 * scores.tanh()
        if self.fails:
            raise ValueError('`sdpa` attention does not support `softcap`')
        return scores


@pytest.mark.parametrize('fails', [False, True])
def test_fused_attention_that_gives_something_else_is_found(fails):
    assert fuses_attention(HostLayer(Attention(), 0, None), WIDTH)
    assert not fuses_attention(HostLayer(LooksUpItsAttention(fails), 0, None), WIDTH)


KINDS_OF_ATTENTION = [
    'exaone',
    'gpt2',
    'gemma3_text',
    'gemma2',
    'gpt_oss',
    'vaultgemma',
]


@pytest.mark.parametrize('kind', KINDS_OF_ATTENTION)
def test_attention_is_fused_where_the_table_says_so(kind, monkeypatch):
    """Eager attention of 1,568 tokens takes five times the memory."""
    calls = []
    fused = nn.functional.scaled_dot_product_attention

    def note_call(*args, **kwargs):
        calls.append(kwargs['is_causal'])
        return fused(*args, **kwargs)

    block = LLMBlock(arch=(OWN_FAMILIES | FAMILIES)[kind])
    monkeypatch.setattr(nn.functional, 'scaled_dot_product_attention', note_call)
    block(tokens())
    assert calls == ([] if 'eager' in ROWS[kind].reason else [False])


@pytest.mark.parametrize('kind', ['exaone', 'vaultgemma'])
def test_left_padding_of_a_causal_block_stays_finite(kind):
    """The first tokens have nothing to look at, with fused attention and without."""
    block = LLMBlock(arch=OWN_FAMILIES[kind], layers=(0, 1), causal=True, window=False)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, :2] = True
    x = tokens().requires_grad_()
    out = block(x, padding)
    assert_equal_but_for_rounding(out[1:, 2:], block(x[1:, 2:]), block)
    out[~padding].sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.bitwise
def test_trying_a_layer_draws_no_global_random_numbers():
    family = HostFamily(config_of('granitemoe'))
    before = torch.get_rng_state()
    family.check_layer(0)
    assert torch.equal(torch.get_rng_state(), before)


# ----------------------------------------------------------------------- what blocks do
KIND = 'lfm2_moe'


@pytest.mark.bitwise
def test_only_the_wanted_tokens_are_returned(checkpoints):
    block = LLMBlock(checkpoints(KIND), causal=True)
    x = tokens()
    out = block(x)
    assert torch.equal(block(x, queries=slice(0, 1)), out[:, :1])
    picked = torch.tensor([[5, 0], [2, 2]])
    expected = torch.stack([out[0, picked[0]], out[1, picked[1]]])
    assert torch.equal(block(x, queries=picked), expected)
    assert block(x[:0]).shape == (0, *x.shape[1:])


@pytest.mark.bitwise
def test_frozen_weights_are_kept_as_those_of_other_blocks(checkpoints):
    block = LLMBlock(checkpoints(KIND))
    assert [*block.state_dict()] == ['_extra_state']
    assert [*block.parameters()] == []
    x = tokens()
    copied = copy.deepcopy(block)
    assert torch.equal(copied(x), block(x))
    mine, theirs = frozen_tensors(block), frozen_tensors(copied)
    assert all(mine[name].data_ptr() == theirs[name].data_ptr() for name in mine)
    assert torch.equal(block.train()(x), block.eval()(x))
    assert block.bfloat16()(x).dtype == torch.float32


@pytest.mark.bitwise
def test_the_bias_that_chooses_experts_is_frozen_and_not_rounded(checkpoints):
    # By default the block is the model's last layer; the tiny model has two.
    block = LLMBlock(checkpoints(KIND), dtype='bfloat16')
    frozen_biases = ending_with('expert_bias', frozen_tensors(block))
    assert len(frozen_biases) == 1
    buffers = dict(random_model(KIND).named_buffers())
    biases_of_last_layer = ending_with('1.feed_forward.expert_bias', buffers)
    assert len(biases_of_last_layer) == 1

    assert frozen_biases[0].dtype == torch.float32
    assert torch.equal(frozen_biases[0], biases_of_last_layer[0])


def ending_with(end: str, tensors: dict[str, Tensor]) -> list[Tensor]:
    """Return the tensors whose names end so."""
    return [tensor for name, tensor in tensors.items() if name.endswith(end)]


def test_a_missing_expert_is_noticed(tmp_path):
    file = write_huggingface(tmp_path, KIND) / 'model.safetensors'
    state = load_file(file)
    name = next(name for name in state if '.experts.2.w1.' in name)
    del state[name]
    save_file(state, file)
    with pytest.raises(CheckpointError, match='expert'):
        LLMBlock(str(tmp_path))


def test_another_checkpoint_is_noticed_when_a_state_is_loaded(checkpoints):
    state = LLMBlock(checkpoints(KIND)).state_dict()
    LLMBlock(checkpoints(KIND)).load_state_dict(state)
    with pytest.raises(CheckpointError, match='other frozen weights'):
        LLMBlock(checkpoints(KIND, seed=1)).load_state_dict(state)


@pytest.mark.bitwise
def test_a_trained_block_gets_its_weights_back_and_has_no_dropout(checkpoints):
    block = LLMBlock(checkpoints(KIND), trainable='all').train()
    x = tokens()
    expected = block(x)
    assert torch.equal(block(x), expected)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    block.init_weights()
    assert torch.equal(block(x), expected)


@pytest.mark.bitwise
def test_random_weights_depend_on_the_seed_alone():
    blocks = [LLMBlock(arch=OWN_FAMILIES[KIND], seed=seed) for seed in (0, 0, 1)]
    first, second, third = (block.source['fingerprint'] for block in blocks)
    assert first == second != third


def test_16_bit_blocks_are_close(checkpoints):
    block = LLMBlock(checkpoints(KIND), dtype='bfloat16')
    exact = LLMBlock(checkpoints(KIND))
    x = tokens()
    assert_equal_but_for_rounding(block(x), exact(x), block, torch.bfloat16)


@pytest.mark.bitwise
def test_an_adapter_learns_and_has_dropout():
    lora = dict(r=2, targets='all-linear', dropout=0.5)
    block = LLMBlock(arch=OWN_FAMILIES[KIND], trainable='lora', lora=lora)
    x = tokens()
    assert torch.equal(block(x), LLMBlock(arch=OWN_FAMILIES[KIND])(x))
    names = [name for name, _ in block.named_parameters()]
    stored = [name for name in block.state_dict() if name.startswith('layers.')]
    assert sorted(stored) == sorted(names)
    assert all('lora_' in name for name in names)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(0.1)
    assert torch.equal(block.eval()(x), block(x))
    assert not torch.equal(block.train()(x), block(x))
    block(x).sum().backward()
    assert all(parameter.grad.any() for parameter in block.parameters())


def test_adapters_that_reach_no_linear_layer_are_refused():
    with pytest.raises(UserError, match='block.lora.targets: adapters reach no linear'):
        LLMBlock(arch=FAMILIES['gpt2'], trainable='lora')


def test_weights_that_were_trained_in_the_fast_layer_are_refused():
    block = LLMBlock(arch=FAMILIES['gpt2'], trainable='all')
    state = block.state_dict()
    state['layers.0.q_proj.weight'] = torch.zeros(32, 32)
    with pytest.raises(CheckpointError, match="'layers.0.q_proj.weight', trained in a"):
        block.load_state_dict(state)


FIELDS = [
    (
        dict(trainable='norms'),
        "block.trainable='norms' needs a family with a layer spec",
    ),
    (dict(causal=dict(soft=0.5)), 'soft=.* needs a family with a layer spec'),
    (
        dict(rotary='llm4seg'),
        "block.rotary='llm4seg'.*only the tables of its own model",
    ),
]


@pytest.mark.parametrize('options, message', FIELDS)
def test_fields_that_need_the_parts_of_a_layer_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        LLMBlock(arch=OWN_FAMILIES[KIND], **options)


NO_TABLES = [('ctrl', 'makes no rotary tables'), ('granitemoe_swa', 'several rotary')]


@pytest.mark.parametrize('kind, reason', NO_TABLES)
def test_rotary_needs_one_module_that_makes_tables(kind, reason):
    with pytest.raises(UserError, match=f"block.rotary=True: '{kind}'.*{reason}"):
        LLMBlock(arch=OWN_FAMILIES[kind], rotary=True)


def test_windows_of_an_unknown_form_are_refused_where_they_count():
    fields = dict(OWN_FAMILIES['exaone'], attention_window=3)
    LLMBlock(arch=fields)
    LLMBlock(arch=fields, causal=True, window=False)
    with pytest.raises(UserError, match='block.window=True: .*attention_window'):
        LLMBlock(arch=fields, causal=True)


def test_a_neck_runs_the_block_without_the_low_rank():
    block = dict(type='LLMBlock', arch=OWN_FAMILIES[KIND])
    feats = (torch.randn(2, 8, 3, 3),)
    (out,) = LLMBlockNeck(8, block)(feats)
    assert out.shape == feats[0].shape


@pytest.mark.parametrize('method', ('fold', 'absorb'))
def test_a_neck_that_asks_for_the_low_rank_is_refused_when_it_is_built(method):
    block = dict(type='LLMBlock', arch=OWN_FAMILIES[KIND])
    with pytest.raises(UserError, match=f"low_rank='{method}'.*has no layer spec"):
        LLMBlockNeck(8, block, low_rank=method)
