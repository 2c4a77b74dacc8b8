"""torch's own tools for states save and load a model with a block: DCP, FSDP2, DDP, averages."""

import copy

import pytest
import torch
import torch.distributed.checkpoint as dcp
from mmengine.model import ExponentialMovingAverage, StochasticWeightAverage
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    set_model_state_dict,
)

from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError
from tests.helpers.models import BLOCK
from tests.helpers.necks.encoder import Encoder, batch, loud, wrapped
from tests.helpers.processes import outputs_of_two
from tests.helpers.runner.state_in_processes import CONTROL

# A state that was saved and loaded computes the same bits.
pytestmark = pytest.mark.bitwise

SEVERAL = dict(after=['blocks.0', 'blocks.1'], share_block=True)
MODELS = {
    'llm': dict(block=BLOCK),
    'trained': dict(block=dict(BLOCK, trainable='all')),
    'control': dict(block=CONTROL),
    'shared': dict(block=BLOCK, **SEVERAL),
}


def make(options: dict, std: float = 0.4) -> Encoder:
    model = wrapped(**options)
    if isinstance(options.get('after'), list):
        necks = list(model.llm_neck)
    else:
        necks = [model.llm_neck]
    for neck in necks:
        loud(neck, std)
    return model


@pytest.mark.parametrize('kind', MODELS)
def test_distributed_checkpoints_hold_the_record(kind, tmp_path):
    options = MODELS[kind]
    model = make(options)
    other = make(options, 0.1)
    state = get_model_state_dict(model)
    records = [state[name] for name in state if name.endswith(KEY)]
    assert records
    for record in records:
        assert record.dtype == torch.uint8 and len(record) > 0
    dcp.save(state, checkpoint_id=tmp_path)
    found = get_model_state_dict(other)
    dcp.load(found, checkpoint_id=tmp_path)
    assert not any(set_model_state_dict(other, found))
    assert torch.equal(other(batch()), model(batch()))


def test_a_distributed_checkpoint_of_other_weights_is_refused(tmp_path):
    dcp.save(get_model_state_dict(make(MODELS['llm'])), checkpoint_id=tmp_path)
    other = make(dict(block=dict(BLOCK, seed=1)))
    state = get_model_state_dict(other)
    dcp.load(state, checkpoint_id=tmp_path)
    with pytest.raises(CheckpointError, match='other frozen weights'):
        set_model_state_dict(other, state)


@pytest.mark.parametrize('average', [ExponentialMovingAverage, StochasticWeightAverage])
@pytest.mark.parametrize('kind', MODELS)
def test_averages_with_buffers_keep_the_record(kind, average):
    options = MODELS[kind]
    model = make(options)
    averaged = average(model, update_buffers=True)
    for _ in range(3):
        averaged.update_parameters(model)
    state = averaged.module.state_dict()
    for name, value in model.state_dict().items():
        if value.dtype == torch.uint8:  # a record
            assert torch.equal(state[name], value)
    make(options).load_state_dict(state)


@pytest.mark.parametrize('kind', MODELS)
def test_mmengine_loads_strictly_and_an_older_state_too(kind, tmp_path):
    options = MODELS[kind]
    model = make(options)
    path = str(tmp_path / 'model.pth')
    save_checkpoint(dict(state_dict=get_state_dict(model)), path)
    other = make(options, 0.1)
    load_checkpoint(other, path, strict=True)
    assert torch.equal(other(batch()), model(batch()))
    if kind == 'control':  # of which the oldest checkpoints have no record
        older = model.state_dict()
        del older[f'llm_neck.{KEY}']
        make(options, 0.1).load_state_dict(older)


def test_copies_of_a_model_have_records_of_their_own():
    model = make(MODELS['llm'])
    twin = copy.deepcopy(model).bfloat16()
    key = f'llm_neck.block.{KEY}'
    assert not torch.equal(twin.state_dict()[key], model.state_dict()[key])


def test_two_processes_split_save_load_and_check(tmp_path):
    outputs_of_two('state_in_processes.py', tmp_path)
