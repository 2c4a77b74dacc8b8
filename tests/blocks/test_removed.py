"""What is gone is refused by its name, in one line, wherever it is named."""

import pytest
from mmengine.registry import MODELS

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.provenance import SOURCE_KEY, encode_source
from lm4ve.errors import CheckpointError, UserError
from tests.helpers.families import FAMILIES

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


@pytest.mark.parametrize('setting', [dict(dtype='int8'), dict(rotary='one-frequency')])
def test_a_checkpoint_gets_one_line(setting):
    block = LLMBlock(arch=LLAMA)
    state = block.state_dict()
    state[SOURCE_KEY] = encode_source({**block.source, **setting})
    with pytest.raises(CheckpointError, match='made with block.* Fix: train again'):
        block.load_state_dict(state)
