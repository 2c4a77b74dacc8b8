"""Time and peak memory of reading one layer out of a 7B-wide checkpoint.

    python tools/benchmarks/load.py --folder /path/with/8GB --out load.json

Writes checkpoints of LLaMA-7B's width (float16) in each layout first.
"""

import json
import multiprocessing
import os
import resource
from pathlib import Path

import torch
from common import llama, middle, parse, parser, ratio, report, timed
from safetensors.torch import save_file

from lm4ve.blocks import LLMBlock
from lm4ve.tasks.base.progress import progress

# Name in Hugging Face's layout -> name in Meta's.
META = {
    'self_attn.q_proj': 'attention.wq',
    'self_attn.k_proj': 'attention.wk',
    'self_attn.v_proj': 'attention.wv',
    'self_attn.o_proj': 'attention.wo',
    'mlp.gate_proj': 'feed_forward.w1',
    'mlp.up_proj': 'feed_forward.w3',
    'mlp.down_proj': 'feed_forward.w2',
    'input_layernorm': 'attention_norm',
    'post_attention_layernorm': 'ffn_norm',
}


def shapes(width: int) -> dict:
    """Return the shapes of a layer's weights, by Hugging Face's names."""
    hidden = llama(width)['intermediate_size']
    known = {
        'mlp.gate_proj': (hidden, width),
        'mlp.up_proj': (hidden, width),
        'mlp.down_proj': (width, hidden),
    }
    return {k: known.get(k, (width,) if 'norm' in k else (width, width)) for k in META}


def write_checkpoints(folder: Path, layers: int, width: int) -> dict:
    """Write both layouts, where they are not there; return their folders."""
    folder = folder / f'{layers}-layers-of-{width}'
    hf, meta = folder / 'huggingface', folder / 'meta'
    if (meta / 'params.json').is_file():
        return dict(huggingface=hf, meta=meta)
    hf.mkdir(parents=True, exist_ok=True)
    meta.mkdir(parents=True, exist_ok=True)
    index, everything = {}, {}
    for i in range(layers):
        layer = {k: torch.randn(s).mul_(0.02).half() for k, s in shapes(width).items()}
        shard = f'model-{i + 1:05d}-of-{layers:05d}.safetensors'
        named = {f'model.layers.{i}.{k}.weight': v for k, v in layer.items()}
        save_file(named, hf / shard)
        index.update(dict.fromkeys(named, shard))
        everything.update({f'layers.{i}.{META[k]}.weight': v for k, v in layer.items()})
    torch.save(everything, meta / 'consolidated.00.pth')
    (hf / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=index)))
    config = dict(llama(width), num_hidden_layers=layers, vocab_size=32000)
    (hf / 'config.json').write_text(json.dumps(config))
    config = dict(dim=width, n_heads=32, n_layers=layers, norm_eps=1e-6, vocab_size=-1)
    (meta / 'params.json').write_text(json.dumps(config))
    return dict(huggingface=hf, meta=meta)


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache, so that reads are from disk."""
    for path in folder.iterdir():
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def read_layer(folder: Path, layer: int, dtype: str) -> None:
    LLMBlock(str(folder), layers=(layer,), dtype=dtype)


def read_raw(path: Path, size: int) -> None:
    with path.open('rb', buffering=0) as f:
        f.read(size)


def read_whole(path: Path) -> None:
    torch.load(path, weights_only=True, map_location='cpu')


def measure(threads: int, function, *args) -> dict:
    """Time a call and the rise of this process's peak memory, in MB."""
    torch.set_num_threads(threads)
    LLMBlock(arch=llama(64))  # what is imported on first use is imported before the clock starts

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = peak()
    row = timed(lambda: function(*args), 'cpu')
    return dict(row, peak_mb=(peak() - before) * 1024 / 1e6)


def ways_to_read(folders: dict, layer: int, size: int) -> dict:
    """Return ``(path, dtype) -> (folder, function, its arguments)``."""
    whole = folders['meta'] / 'consolidated.00.pth'
    ways = {("raw read of a layer's bytes", None): (folders['meta'], read_raw, whole, size)}
    for name, folder in folders.items():
        for dtype in ('float16', 'float32'):
            ways[f'one layer, {name}', dtype] = folder, read_layer, folder, layer, dtype
    ways['the whole file (torch.load)', 'float16'] = folders['meta'], read_whole, whole
    return ways


def main(argv=None) -> None:
    p = parser(__doc__, layers=8)
    p.add_argument('--folder', type=Path, required=True)
    args = parse(p, argv)
    folders = write_checkpoints(args.folder, args.layers, args.width)
    size = 2 * sum(torch.Size(s).numel() for s in shapes(args.width).values())
    # Each call has a process of its own, so that its peak is its own.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['lm4ve.blocks', 'transformers.models.llama.modeling_llama'])
    rows = []
    with context.Pool(1, maxtasksperchild=1) as pool:
        for cache in ('cold', 'warm'):
            runs: dict = {}
            for i in progress(range(args.repeats), f'rounds of measurements, {cache}'):
                for way, (folder, *call) in ways_to_read(folders, args.layers // 2, size).items():
                    if read_whole in call and i + 1 < args.repeats:
                        continue  # it takes long and evicts others from the cache: once, last
                    if cache == 'cold':
                        forget(folder)
                    row = pool.apply(measure, (args.threads, *call))
                    runs.setdefault(way, []).append(row)
            raw, *_ = runs.values()
            for (path, dtype), own in runs.items():
                row = dict(path=path, cache=cache, dtype=dtype, **middle(own))
                row['of raw'] = ratio(own, raw[-len(own) :])
                row['of the block'] = row['peak_mb'] * 1e6 / size / (1 + (dtype == 'float32'))
                rows.append(row)
    total = (folders['meta'] / 'consolidated.00.pth').stat().st_size
    report(
        f'Reading one layer ({size / 1e6:.0f} MB in float16) of {args.layers} '
        f'({total / 1e9:.1f} GB)',
        rows,
        args,
        'of raw: the median over --repeats rounds of the ratio within one; peak_mb: the largest '
        "rise of a process's peak memory; of the block: the same in units of the block's bytes. "
        'Seconds include building the block and its fingerprint (SHA-256).',
    )


if __name__ == '__main__':
    main()
