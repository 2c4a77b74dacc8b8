"""What ``save_pretrained`` writes, and what ``from_pretrained`` refuses."""

import copy
import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import lm4ve
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks.pretrained import CONFIG_FILE, WEIGHTS_FILE
from tests.helpers.families import write_huggingface
from tests.helpers.models import BLOCK
from tests.necks.encoder import Encoder, batch, step, wrapped


def trained(freeze: bool = False, **options) -> Encoder:
    model = wrapped(**options)
    if freeze:
        for name, p in model.named_parameters():
            p.requires_grad_(name.startswith(('llm_neck', 'head')))
    step(model)
    return model


@pytest.mark.parametrize('freeze', [False, True])
@pytest.mark.parametrize('options', [{}, dict(residual='both', norm_cfg=dict(type='LN'))])
def test_what_was_saved_gives_the_same_outputs(freeze, options, tmp_path):
    model = trained(freeze, **options)
    lm4ve.save_pretrained(model, tmp_path / 'new')
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path / 'new')
    assert torch.equal(loaded(batch()), model(batch()))
    again = lm4ve.from_pretrained(wrapped(**options), tmp_path / 'new')
    assert torch.equal(again(batch()), model(batch()))


def test_only_what_was_trained_is_written(tmp_path):
    lm4ve.save_pretrained(trained(freeze=True), tmp_path)
    names = {'llm_neck.mapper_in.weight', 'llm_neck.mapper_out.weight', 'llm_neck.block.llm_source'}
    assert set(load_file(tmp_path / WEIGHTS_FILE)) == names | {'head.weight', 'head.bias'}
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert config['after'] == 'blocks.0' and config['record']['fingerprint']


def test_wrappers_of_torch_and_copies_are_seen_through(tmp_path):
    model = trained()
    compiled = torch.compile(copy.deepcopy(model), backend='eager')
    lm4ve.save_pretrained(compiled, tmp_path)
    assert torch.equal(lm4ve.from_pretrained(Encoder(), tmp_path)(batch()), model(batch()))


def test_a_model_in_half_precision_comes_back_in_it(tmp_path):
    model = Encoder().to(torch.bfloat16)
    lm4ve.wrap(model, 'blocks.0', BLOCK)
    lm4ve.save_pretrained(model, tmp_path)
    loaded = lm4ve.from_pretrained(Encoder().to(torch.bfloat16), tmp_path)
    x = batch().to(torch.bfloat16)
    assert torch.equal(loaded(x), model(x))


def test_a_language_model_that_has_moved_is_named_anew(tmp_path):
    here, there = (write_huggingface(tmp_path / n, 'llama') for n in ('here', 'there'))
    model = wrapped(block=str(here))
    lm4ve.save_pretrained(model, tmp_path / 'saved')
    loaded = lm4ve.from_pretrained(Encoder(), tmp_path / 'saved', block=str(there))
    assert torch.equal(loaded(batch()), model(batch()))
    other = write_huggingface(tmp_path / 'other', 'llama', seed=1)
    refused(tmp_path / 'saved', 'other frozen weights than the config', block=str(other))


def refused(folder, message: str, model=None, error=CheckpointError, **options) -> None:
    """Load and expect one message, and a model that is as it was."""
    model = model or Encoder()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(error, match=message):
        lm4ve.from_pretrained(model, folder, **options)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(
        torch.equal(v, after[k]) for k, v in before.items()
    )


@pytest.mark.parametrize(
    'changed, message',
    [
        (dict(seed=1), 'other frozen weights'),
        (dict(layers=(1,)), 'other frozen weights'),
        (dict(causal=True), 'causal=False, the config has True'),
        (dict(trainable='all'), 'another neck or block'),
    ],
)
def test_another_block_is_refused(changed, message, tmp_path):
    lm4ve.save_pretrained(trained(), tmp_path)
    refused(tmp_path, message, block={**BLOCK, **changed})
    refused(tmp_path, message, model=wrapped(block={**BLOCK, **changed}))


def test_another_residual_or_place_of_a_wrapped_model_is_refused(tmp_path):
    lm4ve.save_pretrained(trained(), tmp_path)
    refused(tmp_path, "residual='none', the config has 'outer'", model=wrapped(residual='outer'))
    refused(tmp_path, "after='blocks.0'.*wrapped with after='blocks.1'", model=wrapped('blocks.1'))


def test_an_encoder_with_other_frozen_weights_is_refused(tmp_path):
    lm4ve.save_pretrained(trained(freeze=True), tmp_path)
    other = Encoder()
    other.blocks[1].weight.data += 1e-3
    refused(tmp_path, 'around other frozen weights of Encoder', model=other)
    smaller = Encoder()
    smaller.blocks = smaller.blocks[:1]
    refused(tmp_path, 'other frozen weights', model=smaller)


def test_an_encoder_of_another_shape_is_refused(tmp_path):
    lm4ve.save_pretrained(trained(), tmp_path)
    other = Encoder()
    other.head = torch.nn.Linear(16, 5)
    refused(tmp_path, r'another model \(Encoder\).*head.weight \[3, 16\] instead of', model=other)
    larger = Encoder()
    larger.extra = torch.nn.Linear(2, 2)
    refused(tmp_path, 'another model.*extra.weight', model=larger)


@pytest.mark.parametrize(
    'file, content',
    [
        *((name, None) for name in (CONFIG_FILE, WEIGHTS_FILE)),
        *(
            (CONFIG_FILE, text)
            for text in (b'{"format"', b'[1]', b'{"format": 1}', b'{"format": 2}')
        ),
        *((WEIGHTS_FILE, data) for data in (b'', b'\x08' + b'\0' * 7 + b'{}      ')),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(file, content, tmp_path):
    lm4ve.save_pretrained(wrapped(), tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    kinds = (CheckpointError, OSError, ValueError, LookupError, TypeError, SafetensorError)
    refused(tmp_path, '', error=kinds)


def test_a_model_without_a_block_is_not_saved(tmp_path):
    with pytest.raises(UserError, match='Encoder was not given a block.*wrap it first'):
        lm4ve.save_pretrained(Encoder(), tmp_path)
    with pytest.raises(UserError, match='give its 0, which was'):
        lm4ve.save_pretrained(torch.nn.Sequential(wrapped()), tmp_path)


def test_a_block_that_was_a_module_is_asked_for(tmp_path):
    lm4ve.save_pretrained(wrapped(block=wrapped().llm_neck.block), tmp_path)
    refused(tmp_path, 'given as a module.*block=')
    block = wrapped().llm_neck.block
    assert lm4ve.from_pretrained(Encoder(), tmp_path, block=block).llm_neck.block is block
