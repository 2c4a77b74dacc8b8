"""Measure how many samples a second one core loads: the input pipelines of the configs.

    python tools/benchmarks/loader.py --out loader.json
    python tools/benchmarks/loader.py --tasks image --samples 8

Each row is a config's own training data set, on files of the real format and size that
loader_files.py makes, in this process and one thread, batch by batch as a worker of the
data loader does it. `a core`: samples by second of CPU time, the median of the rounds,
which other processes hardly touch. `Pillow alone`: the same samples in the same rounds,
without the compiled kernels of `lm4ve[fast]`. `GPU asks`: samples a second of a GPU
that reaches the stated share of its 16-bit products, by the operations that lm4ve/cost
counts. `cores`: the workers that one GPU then needs.
"""

import contextlib
import itertools
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import cv2
import loader_files as files
from common import in_rounds, parse, report
from mmengine.config import Config
from mmengine.registry import DATASETS, FUNCTIONS, init_default_scope
from mmengine.runner import set_random_seed

from lm4ve.cost.step import cost_of_step
from lm4ve.pixels import resample
from lm4ve.runner.config import read_config
from lm4ve.tasks.base.tested import trained_dataset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CLOUD = 'pointcloud/pointbert_llama'
SSV2, K400 = (partial(files.clips, **kind) for kind in (files.SSV2, files.K400))
#: Name -> a config, what writes its data, what a sample is called, and how many are
#: loaded in a round.
CASES = {
    'image': ('lm4ve/vit-s_llama_in1k.py', files.imagenet, 'images', 64),
    'video': ('video/videomae-s_llama_ssv2.py', SSV2, 'clips', 8),
    'video-k400': ('video/videomae-s_llama_k400.py', K400, 'clips', 8),
    'cloud': (f'{CLOUD}_scanobjectnn-hardest.py', files.scanobjectnn, 'clouds', 64),
    'cloud-8k': (f'{CLOUD}_modelnet40-8k.py', files.modelnet40, 'clouds', 16),
    'motion': ('motion/vectornet_llama_argoverse1.py', files.full_scenes, 'scenes', 64),
    'vqa': ('vqa/meter_llama_vqav2.py', files.vqav2, 'questions', 32),
}


def loader(cfg: Config, write, folder: Path, count: int):
    """Build a config's training data on files made for it.

    Returns:
        tuple: The data set, and a function that loads as many samples as asked, in
            batches.
    """
    write(folder, trained_dataset(cfg), count)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    kind = dict(cfg.train_dataloader.get('collate_fn') or dict(type='pseudo_collate'))
    collate = partial(FUNCTIONS.get(kind.pop('type')), **kind)
    batch = min(cfg.train_dataloader.batch_size, count)

    def load(samples: int) -> None:
        for start in range(0, samples, batch):
            stop = min(start + batch, samples)
            collate([dataset[i % len(dataset)] for i in range(start, stop)])

    return dataset, load


def load_a_round(
    load: Callable, samples: int, seeds: Iterator[int], compiled: bool
) -> None:
    """Load samples by the random numbers of the next seed, with or without compiled kernels."""
    set_random_seed(next(seeds))
    without = patch.object(resample, 'kernels', return_value=None)
    with contextlib.nullcontext() if compiled else without:
        load(samples)


def measure(name: str, args) -> dict:
    """Return the row of one case."""
    config, write, noun, count = CASES[name]
    cfg = read_config(CONFIGS / config)
    count = args.samples or count
    with tempfile.TemporaryDirectory() as folder:
        dataset, load = loader(cfg, write, Path(folder) / 'data', min(count, 64))
        runs = {
            column: partial(load_a_round, load, count, itertools.count(), compiled)
            for column, compiled in (('Pillow alone', False), ('a core', True))
        }
        times = in_rounds(runs, args)
    loaded = count * getattr(dataset, 'num_repeats', 1)
    rates = {
        column: statistics.median(loaded / row['cpu_seconds'] for row in rows)
        for column, rows in times.items()
    }
    row = {'path': config, 'samples': noun, **rates}
    if resample.kernels() is None:
        del row['Pillow alone']  # both were
    if args.tflops:
        cost = cost_of_step(read_config(CONFIGS / config))
        row['GPU asks'] = asked = (
            args.tflops * 1e12 * args.utilization * cost.batch / 2 / cost.macs
        )
        row['cores'] = math.ceil(asked / rates['a core'])
    return row


def main(argv=None) -> None:
    flags = {
        '--tasks': dict(nargs='+', default=list(CASES), choices=CASES),
        '--samples': dict(type=int, help='entries of the data set that a round loads'),
        '--tflops': dict(
            type=float, default=312, help="of the GPU; 0: omitted; default: A100's"
        ),
        '--utilization': dict(
            type=float, default=0.4, help='the share reached; default 0.4'
        ),
    }
    args = parse(argv, __doc__, flags, threads=1, repeats=3)
    cv2.setNumThreads(0)  # as the configs set it in workers
    rows = [measure(name, args) for name in args.tasks]
    title = 'Samples a second of CPU time: training data of each config, on files of the real size'
    note = f'a core: median of {args.repeats} rounds.'
    if args.tflops:
        note += f' GPU asks: samples a second at {args.utilization:.0%} of {args.tflops:g} Tflop/s;'
        note += ' cores: how many keep one such GPU busy.'
    report(title, rows, args, note)


if __name__ == '__main__':
    main()
