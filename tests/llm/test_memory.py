"""Reading one layer of many costs the memory of that layer."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.families import write_huggingface, write_meta

WIDTH, LAYERS = 512, 16
SIZES = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS)
LAYER_BYTES = 4 * (16 * WIDTH**2 + 2 * WIDTH)  # q, k, v, o, an MLP of 4 x WIDTH and two norms
WRITE = {
    'sharded-safetensors': lambda f: write_huggingface(f, 'llama', f.name, **SIZES),
    'bin': lambda f: write_huggingface(f, 'llama', f.name, **SIZES),
    'meta': lambda f: write_meta(f, sizes=SIZES),
}

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
    not Path('/proc/self/clear_refs').exists(), reason="peak memory is read from Linux' /proc"
)
def test_one_layer_costs_the_memory_of_one_layer():
    with tempfile.TemporaryDirectory() as root:  # pytest keeps its folders
        folders = [write(Path(root) / layout) for layout, write in WRITE.items()]
        command = [sys.executable, '-c', SCRIPT, *map(str, folders)]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    raised = [int(line.split()[1]) for line in out.splitlines() if line.startswith('RAISED')]
    allowed = 1.5 * LAYER_BYTES + 40e6
    assert LAYER_BYTES * LAYERS > 4 * allowed  # reading all of it would show
    for layout, found in zip(WRITE, raised, strict=True):
        assert found < allowed, f'{layout}: {found / 1e6:.0f} MB'
