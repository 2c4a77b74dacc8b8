"""Reading one layer of many costs the memory of that layer."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

WIDTH, LAYERS = 512, 16
# A layer's weights by Hugging Face's and Meta's names: q, k, v, o and an MLP of 4 x WIDTH.
SHAPES = {
    'self_attn.q_proj attention.wq': (WIDTH, WIDTH),
    'self_attn.k_proj attention.wk': (WIDTH, WIDTH),
    'self_attn.v_proj attention.wv': (WIDTH, WIDTH),
    'self_attn.o_proj attention.wo': (WIDTH, WIDTH),
    'mlp.gate_proj feed_forward.w1': (4 * WIDTH, WIDTH),
    'mlp.up_proj feed_forward.w3': (4 * WIDTH, WIDTH),
    'mlp.down_proj feed_forward.w2': (WIDTH, 4 * WIDTH),
    'input_layernorm attention_norm': (WIDTH,),
    'post_attention_layernorm ffn_norm': (WIDTH,),
}
LAYER_BYTES = 4 * sum(torch.Size(s).numel() for s in SHAPES.values())
CONFIG = dict(hidden_size=WIDTH, num_hidden_layers=LAYERS, intermediate_size=4 * WIDTH)

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


def write(folder: Path, layout: str) -> None:
    prefix, which = ('', 1) if layout == 'meta' else ('model.', 0)
    # Tensors that share memory are written once, which would hide the others.
    state = {
        f'{prefix}layers.{i}.{names.split()[which]}.weight': torch.randn(shape)
        for i in range(LAYERS)
        for names, shape in SHAPES.items()
    }
    if layout == 'meta':
        torch.save(state, folder / 'consolidated.00.pth')
        params = dict(dim=WIDTH, n_heads=8, n_layers=LAYERS, norm_eps=1e-5)
        (folder / 'params.json').write_text(json.dumps(params))
        return
    config = dict(CONFIG, model_type='llama', num_attention_heads=8)
    (folder / 'config.json').write_text(json.dumps(config))
    if layout == 'bin':
        torch.save(state, folder / 'pytorch_model.bin')
        return
    weight_map = {}
    for n in range(2):
        part = dict([*state.items()][n * len(state) // 2 : (n + 1) * len(state) // 2])
        save_file(part, folder / f'model-{n}.safetensors')
        weight_map.update(dict.fromkeys(part, f'model-{n}.safetensors'))
    (folder / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=weight_map)))


@pytest.mark.slow
@pytest.mark.skipif(
    not Path('/proc/self/clear_refs').exists(), reason="peak memory is read from Linux' /proc"
)
def test_one_layer_costs_the_memory_of_one_layer():
    layouts = ['sharded-safetensors', 'bin', 'meta']
    with tempfile.TemporaryDirectory() as root:  # pytest keeps its folders
        folders = [Path(root) / layout for layout in layouts]
        for folder in folders:
            folder.mkdir()
            write(folder, folder.name)
        command = [sys.executable, '-c', SCRIPT, *map(str, folders)]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    raised = [int(line.split()[1]) for line in out.splitlines() if line.startswith('RAISED')]
    allowed = 1.5 * LAYER_BYTES + 40e6
    assert LAYER_BYTES * LAYERS > 4 * allowed  # reading all of it would show
    for layout, found in zip(layouts, raised, strict=True):
        assert found < allowed, f'{layout}: {found / 1e6:.0f} MB'
