"""Reading one layer of many costs the memory of that layer."""

import re
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.families import write_huggingface, write_meta
from tests.helpers.tools import run_command

WIDTH = 512
LAYERS = 16
SIZES = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS)
#: q, k, v, o, an MLP of 4 x WIDTH and two norms, in float32.
LAYER_BYTES = 4 * (16 * WIDTH**2 + 2 * WIDTH)

SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from lm4ve.blocks import LLMBlock

def peak():
    with open('/proc/self/status') as f:
        return next(int(l.split()[1]) for l in f if l.startswith('VmHWM')) * 1024

# What is loaded lazily by the first block is not the block's.
LLMBlock(arch=dict(model_type='llama', hidden_size=32, num_hidden_layers=1,
                   num_attention_heads=2, intermediate_size=32))
for folder in sys.argv[1:]:
    with open('/proc/self/clear_refs', 'w') as f:
        f.write('5')  # the peak becomes what is used now
    before = peak()
    LLMBlock(folder, layers=(9, ))
    print('RAISED', peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path('/proc/self/clear_refs').exists(),
    reason="peak memory is read from Linux' /proc",
)
def test_one_layer_costs_the_memory_of_one_layer():
    with tempfile.TemporaryDirectory() as name:  # pytest keeps its folders
        root = Path(name)
        folders = [
            write_huggingface(root / 'shards', 'llama', 'sharded-safetensors', **SIZES),
            write_huggingface(root / 'bin', 'llama', 'bin', **SIZES),
            write_meta(root / 'meta', sizes=SIZES),
        ]
        out = run_command(sys.executable, '-c', SCRIPT, *folders, check=True).stdout
    raised = re.findall(r'^RAISED (\d+)', out, re.M)
    assert len(raised) == 3
    allowed = 1.5 * LAYER_BYTES + 40e6
    assert LAYER_BYTES * LAYERS > 4 * allowed  # reading all of it would show
    for folder, found in zip(folders, raised, strict=True):
        assert int(found) < allowed, f'{folder.name}: {found} bytes'
