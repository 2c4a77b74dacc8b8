"""Reading one layer of many costs the memory of that layer."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

WIDTH, LAYERS = 512, 16
# Weights of one layer: q, k, v, o and an MLP of 4 x WIDTH.
SHAPES = {
    'self_attn.q_proj': (WIDTH, WIDTH),
    'self_attn.k_proj': (WIDTH, WIDTH),
    'self_attn.v_proj': (WIDTH, WIDTH),
    'self_attn.o_proj': (WIDTH, WIDTH),
    'mlp.gate_proj': (4 * WIDTH, WIDTH),
    'mlp.up_proj': (4 * WIDTH, WIDTH),
    'mlp.down_proj': (WIDTH, 4 * WIDTH),
    'input_layernorm': (WIDTH,),
    'post_attention_layernorm': (WIDTH,),
}
META_NAMES = (
    *('attention.wq', 'attention.wk', 'attention.wv', 'attention.wo', 'feed_forward.w1'),
    *('feed_forward.w3', 'feed_forward.w2', 'attention_norm', 'ffn_norm'),
)
META = dict(zip(SHAPES, META_NAMES, strict=True))
LAYER_BYTES = 4 * sum(torch.Size(s).numel() for s in SHAPES.values())

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
    torch.manual_seed(0)
    tensors = {k: torch.randn(s) for k, s in SHAPES.items()}
    names = META if layout == 'meta' else {k: k for k in SHAPES}
    prefix = '' if layout == 'meta' else 'model.'
    state = {
        f'{prefix}layers.{i}.{names[k]}.weight': v
        for i in range(LAYERS)
        for k, v in tensors.items()
    }
    # Tensors that share memory are written once, which would hide the others.
    state = {k: v.clone() for k, v in state.items()}
    if layout == 'meta':
        torch.save(state, folder / 'consolidated.00.pth')
        (folder / 'params.json').write_text(
            json.dumps(dict(dim=WIDTH, n_heads=8, n_layers=LAYERS, norm_eps=1e-5))
        )
        return
    (folder / 'config.json').write_text(
        json.dumps(
            dict(
                model_type='llama',
                hidden_size=WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=8,
                intermediate_size=4 * WIDTH,
            )
        )
    )
    if layout == 'bin':
        torch.save(state, folder / 'pytorch_model.bin')
        return
    names, weight_map = list(state), {}
    for n in range(2):
        shard = f'model-{n + 1:05d}-of-00002.safetensors'
        part = names[n * len(names) // 2 : (n + 1) * len(names) // 2]
        save_file({k: state[k] for k in part}, folder / shard)
        weight_map.update(dict.fromkeys(part, shard))
    (folder / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=weight_map)))


@pytest.mark.slow
@pytest.mark.skipif(
    not Path('/proc/self/clear_refs').exists(), reason="peak memory is read from Linux' /proc"
)
def test_one_layer_costs_the_memory_of_one_layer(tmp_path):
    layouts = ['sharded-safetensors', 'bin', 'meta']
    folders = [tmp_path / layout for layout in layouts]
    try:
        for folder in folders:
            folder.mkdir()
            write(folder, folder.name)
        out = subprocess.run(
            [sys.executable, '-c', SCRIPT, *map(str, folders)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    finally:
        for folder in folders:  # pytest keeps folders of three runs
            shutil.rmtree(folder, ignore_errors=True)
    raised = [int(line.split()[1]) for line in out.splitlines() if line.startswith('RAISED')]
    allowed = 1.5 * LAYER_BYTES + 40e6
    assert LAYER_BYTES * LAYERS > 4 * allowed  # reading all of it would show
    assert len(raised) == len(layouts)
    for layout, found in zip(layouts, raised, strict=True):
        assert found < allowed, f'{layout}: {found / 1e6:.0f} MB'
