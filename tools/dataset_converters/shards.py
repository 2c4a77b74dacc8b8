"""Put a data set of images or videos into shards: few large files in place of many small ones.

    python tools/dataset_converters/shards.py write configs/lm4ve/vit-s_in1k.py \\
        data/imagenet-shards --split train --workers 8
    python tools/dataset_converters/shards.py verify
    data/imagenet-shards/train.index.json

The samples are those of the config's data set of that split, whose paths can be
overridden by --cfg-options. Files are copied as they are. A shard gets its name when it
is whole; a killed run continues with the first shard that is missing when it is started
again. WebDataset reads the same files; `lm4ve.ImageNetShards`, `lm4ve.VideoShards` and
`lm4ve.RepeatAugVideoShards` read them here (docs/guides/input_pipelines.md).
"""

import argparse
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from lm4ve.data.integrity import POLICIES
from lm4ve.data.shard_writing import Entry, verify_shards, write_shards
from lm4ve.errors import check
from lm4ve.runner.cfg_options import OptionsAction
from lm4ve.runner.command_line import build_parser, read_config, run_tool
from lm4ve.tasks import task_of_config

#: Task -> the module that checks its files, and samples of a shard, about 1 GB.
TASKS = {
    'image': ('lm4ve.data.image_files', 10_000),
    'video': ('lm4ve.tasks.video.datasets.video_files', 2_000),
}


def entries_of(cfg: Config, split: str) -> list[Entry]:
    """Return the files of a config's data set."""
    # Files are checked when they are copied, and not all of them before.
    dataset = DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, verify=False))
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    entries = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        label = info['gt_label'] if 'gt_label' in info else info['label']
        path = dataset.path_of(info)
        name = _name_below(path, prefixes.values())
        entries.append(Entry(path, name, np.asarray(label).tolist()))
    return entries


def _name_below(path: str, folders: Sequence[str]) -> str:
    """Return a path below the first folder that contains it."""
    for folder in folders:
        if folder and Path(path).is_relative_to(folder):
            return Path(path).relative_to(folder).as_posix()
    return path


def write(args: argparse.Namespace) -> None:
    """Write the shards that the command line asks for, and print how much they hold."""
    cfg = read_config(args.config, args.cfg_options)
    task = task_of_config(cfg).name
    check('The task of the config', task, choices=TASKS)
    module, per_shard = TASKS[task]
    shards = write_shards(
        entries_of(cfg, args.split),
        args.out,
        args.split,
        args.per_shard or per_shard,
        partial(import_module(module).find_defect, decode=args.decode),
        seed=args.seed if args.split == 'train' else None,
        on_corrupt=args.on_corrupt,
        workers=args.workers,
    )
    count = sum(len(shard['samples']) for shard in shards)
    gigabytes = sum(shard['bytes'] for shard in shards) / 1e9
    print(f'{count:,} samples in {len(shards):,} shards, {gigabytes:,.2f} GB.')


def main(argv: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    kinds = parser.add_subparsers(dest='kind', required=True)
    writer = kinds.add_parser('write', help="write a data set's shards")
    add = writer.add_argument
    add('config', help='of image classification or action recognition')
    add('out', help='the folder to write to')
    add('--split', default='train', choices=('train', 'val', 'test'))
    add('--per-shard', type=int, help='samples; default: 10,000 images, 2,000 videos')
    add('--seed', type=int, default=0, help='of the order of the training split')
    add('--workers', type=int, default=1, help='threads; default: 1')
    add('--decode', action='store_true', help='look for damage by decoding all files')
    add('--on-corrupt', choices=POLICIES, default='skip')
    add('--cfg-options', nargs='+', action=OptionsAction, help='override fields')
    verifier = kinds.add_parser(
        'verify', help='compare shards with the hashes in their index'
    )
    verifier.add_argument('index', help='<folder>/<split>.index.json')
    args = parser.parse_args(argv)
    if args.kind == 'verify':
        count = verify_shards(args.index)
        print(f'{count} shards are as they were written.')
    else:
        write(args)


if __name__ == '__main__':
    run_tool(main)
