"""Time and peak memory of reading one layer out of a 7B-wide checkpoint, from a warm page cache.

    python tools/benchmarks/load.py --folder /path/with/8GB --out load.json

Writes checkpoints of LLaMA-7B's width (float16) in each layout first.
"""

import multiprocessing
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import llama, middle, parse, ratio, report, timed
from tqdm import tqdm
from transformers import AutoConfig, AutoModel

from lm4ve.blocks import LLMBlock
from lm4ve.files import write_json
from lm4ve.llm.meta_layout import LAYER_NAMES


def write_checkpoints(folder: Path, layers: int, width: int) -> dict[str, Path]:
    """Write both layouts, where they are not there; return their folders."""
    folder = folder / f'{layers}-layers-of-{width}'
    hf, meta = folder / 'huggingface', folder / 'meta'
    if not (meta / 'params.json').is_file():
        meta.mkdir(parents=True, exist_ok=True)
        fields = dict(llama(width), num_hidden_layers=layers, vocab_size=32000)
        model = AutoModel.from_config(AutoConfig.for_model(**fields)).half()
        model.save_pretrained(hf, max_shard_size='500MB')
        state = {
            f'layers.{i}.{theirs}': layer.get_parameter(ours).detach()
            for i, layer in enumerate(model.layers)
            for theirs, (ours, _) in LAYER_NAMES.items()
        }
        torch.save(state, meta / 'consolidated.00.pth')
        params = dict(
            dim=width, n_heads=32, n_layers=layers, norm_eps=1e-6, vocab_size=-1
        )
        write_json(params, meta / 'params.json')
    return dict(huggingface=hf, meta=meta)


def measure(threads: int, function: Callable) -> dict:
    """Time a call and the rise of this process's peak memory, in MB."""
    torch.set_num_threads(threads)
    LLMBlock(
        arch=llama(64)
    )  # what is imported on first use is imported before the clock starts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = timed(function, 'cpu')
    rise = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return dict(row, peak_mb=rise * 1024 / 1e6)


def main(argv=None) -> None:
    args = parse(argv, __doc__, {'--folder': dict(type=Path, required=True)}, layers=8)
    folders = write_checkpoints(args.folder, args.layers, args.width)
    whole, hidden = (
        folders['meta'] / 'consolidated.00.pth',
        llama(args.width)['intermediate_size'],
    )
    size = 2 * (4 * args.width**2 + 3 * args.width * hidden + 2 * args.width)  # bytes
    raw = "raw read of a layer's bytes", None
    ways = {raw: partial(np.fromfile, whole, np.uint8, size)}
    for name, folder in folders.items():
        for dtype in ('float16', 'float32'):
            read = partial(
                LLMBlock, str(folder), layers=(args.layers // 2,), dtype=dtype
            )
            ways[f'one layer, {name}', dtype] = read
    ways['the whole file (torch.load)', 'float16'] = partial(
        torch.load, whole, map_location='cpu'
    )
    # Each call has a process of its own, so that its peak is its own.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(
        ['lm4ve.blocks', 'transformers.models.llama.modeling_llama']
    )
    runs: dict = {way: [] for way in ways}
    with context.Pool(1, maxtasksperchild=1) as pool:
        for _ in tqdm(range(args.repeats), 'rounds of measurements', disable=None):
            for way, call in ways.items():
                runs[way].append(pool.apply(measure, (args.threads, call)))
    rows = []
    for (path, dtype), own in runs.items():
        row = dict(path=path, dtype=dtype, **middle(own))
        row['of raw'] = ratio(own, runs[raw])
        row['of the block'] = row['peak_mb'] * 1e6 / size / (1 + (dtype == 'float32'))
        rows.append(row)
    gigabytes = whole.stat().st_size / 1e9
    title = f'Reading one layer ({size / 1e6:.0f} MB in float16) of {args.layers} '
    note = 'of raw: the median over --repeats rounds of the ratio within one; peak_mb: the largest '
    note += (
        "rise of a process's peak memory; of the block: in units of the block's bytes. "
    )
    note += 'Seconds include building the block and its fingerprint (SHA-256).'
    report(f'{title}({gigabytes:.1f} GB)', rows, args, note)


if __name__ == '__main__':
    main()
