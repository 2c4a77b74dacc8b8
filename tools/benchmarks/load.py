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
from common import middle, parser, ratio, report, seconds
from safetensors.torch import save_file

HEADS = 32
# Of a weight: its sides in LLaMA-7B, in units of the width.
HIDDEN = 11008 / 4096
SIDES = {
    'self_attn.q_proj.weight': (1, 1),
    'self_attn.k_proj.weight': (1, 1),
    'self_attn.v_proj.weight': (1, 1),
    'self_attn.o_proj.weight': (1, 1),
    'mlp.gate_proj.weight': (HIDDEN, 1),
    'mlp.up_proj.weight': (HIDDEN, 1),
    'mlp.down_proj.weight': (1, HIDDEN),
    'input_layernorm.weight': (1,),
    'post_attention_layernorm.weight': (1,),
}
META = dict(
    zip(
        SIDES,
        (
            'attention.wq',
            'attention.wk',
            'attention.wv',
            'attention.wo',
            'feed_forward.w1',
            'feed_forward.w3',
            'feed_forward.w2',
            'attention_norm',
            'ffn_norm',
        ),
        strict=True,
    )
)

# Runs in a process of its own, so that its peak is its own. What is imported on
# first use is imported before the clock starts.
_PRELUDE = """
import json, time, torch
def peak():
    text = open('/proc/self/status').read()
    return int(text.split('VmHWM:')[1].split()[0]) * 1024
"""
_REPORT = """
seconds = time.perf_counter() - start
print(json.dumps(dict(seconds=seconds, peak_mb=(peak() - before) / 1e6)))
"""
READ = (
    _PRELUDE
    + """
from lm4ve.blocks import LLMBlock
LLMBlock(arch=dict(model_type='llama', hidden_size=64, intermediate_size=64,
                   num_attention_heads=2, num_hidden_layers=1, vocab_size=8))
before = peak()
start = time.perf_counter()
LLMBlock({path!r}, layers=({layer},), dtype={dtype!r})
"""
    + _REPORT
)
WHOLE = (
    _PRELUDE
    + """
before = peak()
start = time.perf_counter()
torch.load({path!r}, weights_only=True, map_location='cpu')
"""
    + _REPORT
)
RAW = (
    _PRELUDE
    + """
before = peak()
start = time.perf_counter()
with open({path!r}, 'rb', buffering=0) as f:
    f.read({size})
"""
    + _REPORT
)


def shapes(width: int) -> dict:
    """Shapes of a layer's weights."""
    return {k: tuple(int(s * width) for s in sides) for k, sides in SIDES.items()}


def layer_bytes(width: int) -> int:
    """Bytes of a layer in float16."""
    return 2 * sum(torch.Size(s).numel() for s in shapes(width).values())


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
        named = {f'model.layers.{i}.{k}': v for k, v in layer.items()}
        save_file(named, hf / shard)
        index.update(dict.fromkeys(named, shard))
        everything.update({f'layers.{i}.{META[k]}.weight': v for k, v in layer.items()})
    torch.save(everything, meta / 'consolidated.00.pth')
    (hf / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=index)))
    (hf / 'config.json').write_text(
        json.dumps(
            dict(
                model_type='llama',
                hidden_size=width,
                intermediate_size=int(HIDDEN * width),
                num_attention_heads=HEADS,
                num_hidden_layers=layers,
                vocab_size=32000,
            )
        )
    )
    (meta / 'params.json').write_text(
        json.dumps(dict(dim=width, n_heads=HEADS, n_layers=layers, norm_eps=1e-6, vocab_size=-1))
    )
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
    threads = dict(OMP_NUM_THREADS=str(torch.get_num_threads()))
    done = subprocess.run(
        [sys.executable, '-c', code],
        text=True,
        check=True,
        capture_output=True,
        env={**os.environ, **threads},
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(cache: str, folders: dict, layer: int, size: int, repeats: int) -> list:
    """Read a layer of so many bytes in every way, in rounds; return a row a way.

    Ratios are taken within a round: a machine's speed drifts.
    """
    whole = folders['meta'] / 'consolidated.00.pth'
    ways = {
        ("raw read of a layer's bytes", None): (
            RAW.format(path=str(whole), size=size),
            folders['meta'],
        )
    }
    for name, folder in folders.items():
        for dtype in ('float16', 'float32'):
            ways[f'one layer, {name}', dtype] = (
                READ.format(path=str(folder), layer=layer, dtype=dtype),
                folder,
            )

    def once(code: str, folder: Path) -> dict:
        if cache == 'cold':
            forget(folder)
        return run(code)

    runs: dict = {way: [] for way in ways}
    for _ in range(repeats):
        for way, what in ways.items():
            runs[way].append(once(*what))
    raw, *_ = runs.values()
    whole_way = 'the whole file (torch.load)', 'float16'
    runs[whole_way] = [once(WHOLE.format(path=str(whole)), folders['meta'])]
    rows = []
    for (path, dtype), results in runs.items():
        held = size * (2 if dtype == 'float32' else 1)
        peak = max(r['peak_mb'] for r in results)
        rows.append(
            {
                'path': path,
                'cache': cache,
                'dtype': dtype,
                **middle(results),
                'of raw': ratio(seconds(results), seconds(raw[: len(results)])),
                'peak_mb': peak,
                'of the block': peak * 1e6 / held,
            }
        )
    return rows


def main() -> None:
    p = parser(__doc__)
    p.add_argument('--folder', type=Path, required=True)
    p.add_argument('--layers', type=int, default=8)
    p.add_argument(
        '--width', type=int, default=4096, help="the language model's width; smaller for a trial"
    )
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    folders = write_checkpoints(args.folder, args.layers, args.width)
    size = layer_bytes(args.width)
    whole = (folders['meta'] / 'consolidated.00.pth').stat().st_size
    rows = [
        row
        for cache in ('cold', 'warm')
        for row in measure(cache, folders, args.layers // 2, size, args.repeats)
    ]
    report(
        f'Reading one layer ({size / 1e6:.0f} MB in float16) of {args.layers} '
        f'({whole / 1e9:.1f} GB)',
        rows,
        ('path', 'cache', 'dtype', 'seconds', 'of raw', 'peak_mb', 'of the block'),
        args,
        [
            'of raw: the median over --repeats rounds of the ratio within one; '
            "peak_mb: the largest rise of a process's peak memory; of the block: the "
            "same in units of the block's bytes. Seconds include building the block "
            'and its fingerprint (SHA-256).'
        ],
    )


if __name__ == '__main__':
    main()
