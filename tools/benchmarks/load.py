"""Time and peak memory of reading one layer out of a 7B-wide checkpoint.

    python tools/benchmarks/load.py --folder /path/with/8GB --out load.json

Writes checkpoints of LLaMA-7B's width (float16) in each layout first.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from common import parser, report
from safetensors.torch import save_file

D, HIDDEN, HEADS = 4096, 11008, 32
SHAPES = {
    'self_attn.q_proj.weight': (D, D),
    'self_attn.k_proj.weight': (D, D),
    'self_attn.v_proj.weight': (D, D),
    'self_attn.o_proj.weight': (D, D),
    'mlp.gate_proj.weight': (HIDDEN, D),
    'mlp.up_proj.weight': (HIDDEN, D),
    'mlp.down_proj.weight': (D, HIDDEN),
    'input_layernorm.weight': (D, ),
    'post_attention_layernorm.weight': (D, ),
}
META = dict(
    zip(SHAPES, ('attention.wq', 'attention.wk', 'attention.wv', 'attention.wo',
                 'feed_forward.w1', 'feed_forward.w3', 'feed_forward.w2',
                 'attention_norm', 'ffn_norm'), strict=True))
LAYER_BYTES = 2 * sum(torch.Size(s).numel() for s in SHAPES.values())

# Runs in a process of its own, so that its peak is its own.
READ = '''
import json, resource, sys, time
import lm4ve
from lm4ve.blocks.llm_block import LLMBlock
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
LLMBlock({path!r}, layers=({layer},), dtype={dtype!r})
seconds = time.perf_counter() - start
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(seconds=seconds, peak_mb=(after - before) * 1024 / 1e6)))
'''
WHOLE = '''
import json, resource, time, torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
torch.load({path!r}, weights_only=True, map_location='cpu')
seconds = time.perf_counter() - start
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(seconds=seconds, peak_mb=(after - before) * 1024 / 1e6)))
'''


def write_checkpoints(folder: Path, layers: int) -> dict:
    """Write both layouts; return their folders."""
    hf, meta = folder / 'huggingface', folder / 'meta'
    if (meta / 'params.json').is_file():
        return dict(huggingface=hf, meta=meta)
    hf.mkdir(parents=True, exist_ok=True)
    meta.mkdir(parents=True, exist_ok=True)
    index, everything = {}, {}
    for i in range(layers):
        layer = {k: torch.randn(s).mul_(.02).half() for k, s in SHAPES.items()}
        shard = f'model-{i + 1:05d}-of-{layers:05d}.safetensors'
        named = {f'model.layers.{i}.{k}': v for k, v in layer.items()}
        save_file(named, hf / shard)
        index.update(dict.fromkeys(named, shard))
        everything.update({
            f'layers.{i}.{META[k]}.weight': v for k, v in layer.items()
        })
    torch.save(everything, meta / 'consolidated.00.pth')
    (hf / 'model.safetensors.index.json').write_text(
        json.dumps(dict(weight_map=index)))
    (hf / 'config.json').write_text(json.dumps(dict(
        model_type='llama', hidden_size=D, intermediate_size=HIDDEN,
        num_attention_heads=HEADS, num_hidden_layers=layers, vocab_size=32000)))
    (meta / 'params.json').write_text(json.dumps(dict(
        dim=D, n_heads=HEADS, n_layers=layers, norm_eps=1e-6, vocab_size=-1)))
    return dict(huggingface=hf, meta=meta)


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache, so that reads are from disk."""
    for path in folder.iterdir():
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def run(code: str) -> dict:
    """Run code in a process of its own; return the JSON it prints last."""
    done = subprocess.run([sys.executable, '-c', code], text=True, check=True,
                          capture_output=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def raw_read(path: Path) -> dict:
    """Read as many bytes as a layer has, and nothing else."""
    import time
    with open(path, 'rb', buffering=0) as f:
        start = time.perf_counter()
        left = LAYER_BYTES
        while left > 0:
            chunk = f.read(min(left, 1 << 24))
            if not chunk:
                break
            left -= len(chunk)
        return dict(seconds=time.perf_counter() - start)


def main() -> None:
    p = parser(__doc__)
    p.add_argument('--folder', type=Path, required=True)
    p.add_argument('--layers', type=int, default=8)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    folders = write_checkpoints(args.folder, args.layers)
    whole = folders['meta'] / 'consolidated.00.pth'
    rows = []
    for cache in ('cold', 'warm'):
        def ready(folder, cache=cache):
            if cache == 'cold':
                forget(folder)

        for name, folder in folders.items():
            for dtype in ('float16', 'float32'):
                ready(folder)
                result = run(READ.format(
                    path=str(folder), layer=args.layers // 2, dtype=dtype))
                rows.append(dict(path=f'one layer, {name}', cache=cache,
                                 dtype=dtype, **result))
        ready(folders['meta'])
        rows.append(dict(path='the whole file (torch.load)', cache=cache,
                         dtype='float16', **run(WHOLE.format(path=str(whole)))))
        ready(folders['meta'])
        rows.append(dict(path="raw read of a layer's bytes", cache=cache,
                         **raw_read(whole)))
    for row in rows:
        if 'peak_mb' in row:
            row['of a layer'] = row['peak_mb'] * 1e6 / LAYER_BYTES
    report(
        f'Reading one layer ({LAYER_BYTES / 1e6:.0f} MB in float16) of '
        f'{args.layers} ({whole.stat().st_size / 1e9:.1f} GB)', rows,
        ('path', 'cache', 'dtype', 'seconds', 'peak_mb', 'of a layer'), args,
        ['peak_mb: rise of the process\'s peak memory; of a layer: the same in '
         'layers of float16. Seconds include building the block and its '
         'fingerprint (SHA-256).'])


if __name__ == '__main__':
    main()
