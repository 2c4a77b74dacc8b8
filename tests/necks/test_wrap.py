"""``lm4ve.wrap`` and ``LLMBlockInsert``: any model, any place, one message for each mistake."""

import copy

import pytest
import torch
from mmengine.registry import MODELS

import lm4ve
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockInsert
from tests.helpers.models import BLOCK
from tests.necks.encoder import C, Encoder, batch, step, wrapped


@pytest.mark.parametrize(
    'after, index', [('blocks.0', 0), ('stem', 0), ('pair', 0), ('pair', -2), ('named', 'features')]
)
def test_the_named_output_goes_through_the_neck(after, index):
    model, plain = wrapped(after, index=index), Encoder()
    expected = plain(batch(), after, model.llm_neck)
    torch.testing.assert_close(model(batch()), expected)
    assert not torch.allclose(expected, plain(batch()))


def test_a_host_keeps_its_layers_depths():
    pytest.importorskip('mmpretrain')
    arch = dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32)
    vit = dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=16, patch_size=8)
    plain = MODELS.build(vit)
    neck = dict(type='LLMBlockNeck', in_channels=16, block=BLOCK)
    model = LLMBlockInsert(vit, 'layers.1', neck)
    assert {k for k in model.state_dict() if 'llm_neck.' not in k} == set(plain.state_dict())
    name = 'layers.1.ln1.weight'
    assert model.get_layer_depth(name) == plain.get_layer_depth(name)
    assert model.llm_neck.norm is None


WRONG = [
    (dict(after='block.1'), r"after='block.1' is no submodule of Encoder. Did you mean 'blocks"),
    (dict(after=''), "after='' is no submodule.*stem, blocks"),
    (dict(after='blocks'), 'only a container.*blocks.0, blocks.1'),
    (dict(after='act'), 'does not show the width.*give in_channels='),
    (dict(after='blocks.0', out_type='cls_token'), 'neck.out_type'),
    (dict(after='blocks.0', block='no/such/folder'), "block.checkpoint='no/such/folder'"),
    (dict(after='blocks.0', residuals='outer'), 'residuals'),
]


@pytest.mark.parametrize('options, message', WRONG)
def test_a_wrong_argument_is_one_message_and_changes_nothing(options, message):
    model = Encoder()
    with pytest.raises((UserError, TypeError), match=message):
        lm4ve.wrap(model, **{'block': BLOCK, **options})
    assert set(model.state_dict()) == set(Encoder().state_dict())


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
    model = Encoder().to(dtype) if first == 'cast' else wrapped().to(dtype)
    if first == 'cast':
        torch.manual_seed(2)
        lm4ve.wrap(model, 'blocks.0', BLOCK)
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
