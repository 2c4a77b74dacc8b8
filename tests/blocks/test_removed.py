"""What is gone is refused by its name, in one line, wherever it is named."""

import pytest
from mmengine.registry import MODELS

import lm4ve
from lm4ve.blocks import LLMBlock
from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockNeck
from tests.helpers.families import FAMILIES
from tests.helpers.necks.encoder import Encoder
from tests.helpers.old_records import old_block_record

LLAMA = FAMILIES['llama']
GONE = [
    (dict(dtype='int8'), "block.dtype='int8' .* Fix: block.dtype='bfloat16'"),
    (dict(dtype='float8'), "block.dtype='float8' .* Fix: block.dtype='bfloat16'"),
    (dict(rotary='one-frequency'), r"block.rotary='one-fr.* Fix: block\.rotary=True"),
]


@pytest.mark.parametrize(('fields', 'line'), GONE, ids=str)
def test_a_call_and_a_config_get_one_line(fields, line):
    with pytest.raises(UserError, match=line) as error:
        LLMBlock(arch=LLAMA, **fields)
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match=line):
        MODELS.build(dict(type='LLMBlock', arch=LLAMA, **fields))


GONE_OF_NECKS = [
    (dict(compile=True), r'neck.compile=True .* Fix: compile=True of the config'),
    (dict(compile={}), r'neck.compile={} '),
    (dict(train_queries=0.5), 'neck.train_queries=0.5 .* Fix: leave it out'),
    (dict(queries=dict(learned=1)), 'neck.queries=.* Fix: .* a part'),
    (dict(out_type='query'), "neck.out_type='query' .* Fix: .* a part"),
]


@pytest.mark.parametrize(('fields', 'line'), GONE_OF_NECKS, ids=str)
def test_of_a_neck_a_call_and_a_config_get_one_line(fields, line):
    block = dict(type='LLMBlock', arch=LLAMA)
    config = dict(type='LLMBlockNeck', in_channels=8, block=block, **fields)
    with pytest.raises(UserError, match=line) as error:
        MODELS.build(config)
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match=line):
        lm4ve.wrap(Encoder(), 'blocks.0', block, **fields)


def test_a_removed_field_that_asks_for_nothing_is_passed_over():
    block = dict(type='LLMBlock', arch=LLAMA)
    neck = LLMBlockNeck(8, block, compile=False, train_queries=None, queries=None)
    state = neck.state_dict()
    record = old_block_record(state, f'block.{KEY}', queries='none')
    del state[KEY], state[f'block.{KEY}']
    neck.load_state_dict({**state, 'block.llm_source': record})


@pytest.mark.parametrize('setting', [dict(dtype='int8'), dict(rotary='one-frequency')])
def test_a_checkpoint_gets_one_line(setting):
    block = LLMBlock(arch=LLAMA)
    state = dict(llm_source=old_block_record(block.state_dict(), **setting))
    with pytest.raises(CheckpointError, match='made with block.* Fix: train again'):
        block.load_state_dict(state)
