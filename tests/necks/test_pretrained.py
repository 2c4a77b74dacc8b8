"""``wrap``, ``save_pretrained``, ``from_pretrained``: any place, one message for each mistake."""

import copy
import json

import pytest
import torch
from mmengine.registry import MODELS
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import lm4ve
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockInsert
from lm4ve.necks.pretrained import CONFIG_FILE, WEIGHTS_FILE
from tests.helpers.families import write_huggingface
from tests.helpers.models import BLOCK
from tests.helpers.necks.encoder import C, Encoder, batch, step, wrapped


def trained(freeze: bool = False, **options) -> Encoder:
    model = wrapped(**options)
    for name, p in model.named_parameters():
        p.requires_grad_(not freeze or name.startswith(('llm_neck', 'head')))
    step(model)
    return model


@pytest.mark.parametrize('freeze', [False, True])
@pytest.mark.parametrize(
    'options', [{}, dict(residual='both', norm_cfg=dict(type='LN'))]
)
@pytest.mark.bitwise
def test_a_saved_model_gives_the_same_outputs(freeze, options, tmp_path):
    model = trained(freeze, **options)
    lm4ve.save_pretrained(model, tmp_path / 'plain')
    compiled = torch.compile(copy.deepcopy(model), backend='eager')
    lm4ve.save_pretrained(compiled, tmp_path / 'compiled')
    for folder in ('plain', 'compiled'):
        for new in (Encoder(), wrapped(**options)):
            loaded = lm4ve.from_pretrained(new, tmp_path / folder)
            assert torch.equal(loaded(batch()), model(batch()))


@pytest.mark.bitwise
def test_a_model_in_evaluation_gets_a_neck_in_evaluation(tmp_path):
    options = dict(lora=dict(r=2, dropout=0.5))
    model = trained(**options).eval()
    lm4ve.save_pretrained(model, tmp_path)
    loaded = lm4ve.from_pretrained(Encoder().eval(), tmp_path)
    assert torch.equal(loaded(batch()), model(batch()))


def test_only_what_was_trained_is_written(tmp_path):
    lm4ve.save_pretrained(trained(freeze=True), tmp_path)
    names = {
        'llm_neck.mapper_in.weight',
        'llm_neck.mapper_out.weight',
        'llm_neck._extra_state',
        'llm_neck.block._extra_state',
    }
    assert set(load_file(tmp_path / WEIGHTS_FILE)) == names | {
        'head.weight',
        'head.bias',
    }
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert config['after'] == 'blocks.0' and config['record']['fingerprint']


@pytest.mark.bitwise
def test_the_language_model_may_have_moved(tmp_path):
    here, there = (write_huggingface(tmp_path / n, 'llama') for n in ('here', 'there'))
    model = wrapped(block=str(here))
    lm4ve.save_pretrained(model, tmp_path / 'saved')
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path / 'saved', block=str(there))
    assert torch.equal(loaded(batch()), model(batch()))
    other = write_huggingface(tmp_path / 'other', 'llama', seed=1)
    refused(
        tmp_path / 'saved', 'other frozen weights than the config', block=str(other)
    )


def refused(
    folder, message: str | None, model=None, error=UserError, **options
) -> None:
    """Load and expect one message, and a model that is as it was."""
    model = model or Encoder()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(error, match=message):
        lm4ve.from_pretrained(model, folder, **options)
    torch.testing.assert_close({**model.state_dict()}, before, rtol=0, atol=0)


BLOCKS = [
    (dict(seed=1), 'other frozen weights'),
    (dict(layers=(1,)), 'other frozen weights'),
    (dict(causal=True), 'causal=False, the config has True'),
    (dict(trainable='all'), 'another neck or block'),
]


@pytest.mark.parametrize('changed, message', BLOCKS)
def test_another_block_is_refused(changed, message, tmp_path):
    lm4ve.save_pretrained(trained(), tmp_path)
    refused(tmp_path, message, block={**BLOCK, **changed})
    refused(tmp_path, message, model=wrapped(block={**BLOCK, **changed}))


def test_nothing_of_a_neck_that_is_refused_was_loaded(tmp_path):
    lm4ve.save_pretrained(trained(gate=True, residual='outer'), tmp_path)
    refused(tmp_path, "residual='outer'", model=wrapped(gate=True, residual='inner'))


def change(model: Encoder, name: str, value) -> Encoder:
    setattr(model, name, value(getattr(model, name, None)))
    return model


ENCODERS = [
    (0, lambda: wrapped(residual='outer'), "residual='none', the config has 'outer'"),
    (
        0,
        lambda: wrapped('blocks.1'),
        "after='blocks.1' of lm4ve.wrap differs from 'blocks.0'",
    ),
    (
        *(0, lambda: change(Encoder(), 'head', lambda _: torch.nn.Linear(16, 5))),
        r'another model \(Encoder\).*head.weight \[3, 16\] instead of',
    ),
    (
        0,
        lambda: change(Encoder(), 'extra', lambda _: torch.nn.Linear(2, 2)),
        'extra.weight',
    ),
    (
        1,
        lambda: change(Encoder(), 'stem', lambda _: torch.nn.Linear(8, 16)),
        'frozen weights',
    ),
    (1, lambda: change(Encoder(), 'blocks', lambda x: x[:1]), 'frozen weights'),
]


@pytest.mark.parametrize('freeze, make, message', ENCODERS)
def test_another_encoder_or_place_is_refused(freeze, make, message, tmp_path):
    lm4ve.save_pretrained(trained(bool(freeze)), tmp_path)
    refused(tmp_path, message, model=make())


NOT_WHOLE = [
    *((CONFIG_FILE, text) for text in (None, b'{"format"', b'[1]', b'{"format": 2}')),
    *((WEIGHTS_FILE, data) for data in (None, b'', b'\x08' + b'\0' * 7 + b'{}      ')),
]


@pytest.mark.parametrize('file, content', NOT_WHOLE)
def test_a_folder_that_is_not_whole_is_refused(file, content, tmp_path):
    lm4ve.save_pretrained(wrapped(), tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    refused(
        tmp_path,
        None,
        error=(OSError, ValueError, LookupError, TypeError, SafetensorError),
    )


@pytest.mark.parametrize('value', [torch.nan, -torch.inf])
def test_weights_that_are_not_finite_are_refused(value, tmp_path):
    lm4ve.save_pretrained(trained(), tmp_path)
    saved = load_file(tmp_path / WEIGHTS_FILE)
    saved['llm_neck.mapper_in.weight'][0, 0] = value
    save_file(saved, tmp_path / WEIGHTS_FILE)
    model = Encoder()
    with pytest.raises(
        UserError, match=r'NaN or infinite, in 1 tensors: llm_neck\.mapper_in'
    ):
        lm4ve.from_pretrained(model, tmp_path)
    assert not hasattr(model, 'llm_neck')


def test_a_model_without_a_block_is_not_saved(tmp_path):
    with pytest.raises(UserError, match='Encoder has no block.*wrap it first'):
        lm4ve.save_pretrained(Encoder(), tmp_path)


def test_a_block_that_was_a_module_must_be_given(tmp_path):
    lm4ve.save_pretrained(wrapped(block=wrapped().llm_neck.block), tmp_path)
    refused(tmp_path, 'given as a module.*block=')
    block = wrapped().llm_neck.block
    assert (
        lm4ve.from_pretrained(Encoder(), tmp_path, block=block).llm_neck.block is block
    )


@pytest.mark.parametrize(
    'after, index',
    [('blocks.0', 0), ('stem', 0), ('pair', 0), ('pair', -2), ('named', 'features')],
)
def test_the_named_output_goes_through_the_neck(after, index):
    model, plain = wrapped(after, index=index), Encoder()
    expected = plain(batch(), after, model.llm_neck)
    torch.testing.assert_close(model(batch()), expected)
    assert not torch.allclose(expected, plain(batch()))


def test_a_host_keeps_its_layers_depths():
    pytest.importorskip('mmpretrain')
    arch = dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32)
    vit = dict(
        type='mmpretrain.VisionTransformer', arch=arch, img_size=16, patch_size=8
    )
    plain = MODELS.build(vit)
    neck = dict(type='LLMBlockNeck', in_channels=16, block=BLOCK)
    model = LLMBlockInsert(vit, 'layers.1', neck)
    assert {k for k in model.state_dict() if 'llm_neck.' not in k} == set(
        plain.state_dict()
    )
    name = 'layers.1.ln1.weight'
    assert model.get_layer_depth(name) == plain.get_layer_depth(name)
    assert model.llm_neck.norm is None


def test_a_block_without_a_type_is_a_message():
    with pytest.raises(
        UserError, match="^block has no type. Fix: block=dict.type='LLM"
    ):
        MODELS.build(dict(type='LLMBlockNeck', in_channels=16, block=dict(layer=3)))


WRONG = [
    (dict(after='layers.1'), r"Did you mean 'blocks.1'\?$"),
    (dict(after='encoder.layer.1'), r"Did you mean 'blocks.1'\?$"),
    (dict(after='blocks.0', block=dict(layer=3)), r"^block.layer is not.*'layers'\?$"),
    (
        dict(after='block.1'),
        r"after='block.1' is no submodule of Encoder. Did you mean 'blocks",
    ),
    (dict(after=''), "after='' is no submodule.*stem, blocks"),
    (dict(after='blocks'), r'only a container.*blocks\.\{0\.\.1\}'),
    (dict(after='act'), 'does not show the width.*give in_channels='),
    (dict(after='blocks.0', out_type='cls_token'), "^out_type='cls_token' of a neck"),
    (dict(after='blocks.0', block=None), '^block=None must be'),
    (dict(after='blocks.0', block=3), '^block=3 must be'),
    (
        dict(after='blocks.0', block='no/such/folder'),
        "block.checkpoint='no/such/folder'",
    ),
    (dict(after='blocks.0', residuals='outer'), "residuals is not.*'residual'"),
    (dict(after=11), 'after=11 must be'),
]


@pytest.mark.parametrize('options, message', WRONG)
def test_a_wrong_argument_is_one_message_and_changes_nothing(options, message):
    model = Encoder()
    with pytest.raises(UserError, match=message):
        lm4ve.wrap(model, **{'block': BLOCK, **options})
    assert set(model.state_dict()) == set(Encoder().state_dict())


@pytest.mark.parametrize('place', [dict(after='norm'), dict(before='norm')])
def test_a_block_after_the_final_norm_is_warned_of(place, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'lm4ve.necks.wrapping.print_log', lambda text, **_: lines.append(text)
    )
    lm4ve.wrap(Encoder(), **place, block=BLOCK, in_channels=C)
    if 'before' in place:
        assert not lines
        return
    (line,) = lines
    assert "after='norm' is the final norm of Encoder" in line
    assert "Fix: the last layer, or before='norm'" in line


UNFIT = [
    (dict(after='blocks.0', in_channels=8), f'gives .*{C}.*in_channels={C}'),
    (dict(after='named'), r"index=0 .*'features': \[2, 5, 16\].*the key"),
    (dict(after='pair', index=1), r'index=1 .*1: .int'),
]


@pytest.mark.parametrize('options, message', UNFIT)
def test_the_first_batch_shows_other_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        wrapped(**options)(batch())


def test_a_second_block_is_refused_and_the_first_stays():
    model = wrapped()
    before = model(batch())
    with pytest.raises(UserError, match='has a block already'):
        lm4ve.wrap(model, 'blocks.1', BLOCK)
    torch.testing.assert_close(model(batch()), before)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('first', ['cast', 'wrap'])
def test_a_model_in_half_precision_keeps_it(first, dtype):
    exact = wrapped()(batch())
    model = wrapped(dtype=dtype) if first == 'cast' else wrapped().to(dtype)
    out = model(batch().to(dtype))
    out.sum().backward()
    assert out.dtype == dtype == model.llm_neck.mapper_in.weight.dtype
    torch.testing.assert_close(out.float(), exact, atol=0.1, rtol=0.1)
    assert model.llm_neck.mapper_in.weight.grad.abs().sum() > 0


def test_an_empty_model_is_refused():
    with torch.device('meta'):
        model = Encoder()
    with pytest.raises(UserError, match="on the device 'meta'.*to_empty"):
        lm4ve.wrap(model, 'stem', BLOCK)


def test_a_copy_learns_alone():
    model = wrapped()
    twin = copy.deepcopy(model)
    before = twin(batch())
    step(model)
    torch.testing.assert_close(twin(batch()), before)
    assert not torch.allclose(model(batch()), before)


def test_a_compiled_model_gives_the_same_in_one_graph():
    model = wrapped()
    expected = model(batch())
    compiled = torch.compile(copy.deepcopy(model), backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(batch()), expected)
    step(compiled)
    assert not torch.allclose(compiled(batch()), expected)
