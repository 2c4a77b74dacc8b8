"""Put a data set of images or videos into shards: few large files in place of many small ones.

    python tools/dataset_converters/shards.py write configs/lm4ve/vit-s_in1k.py \\
        data/imagenet-shards --split train --workers 8
    python tools/dataset_converters/shards.py verify data/imagenet-shards/train.index.json

The samples are those of the config's data set of that split, whose paths can be overridden by
--cfg-options. Files are copied as they are. A killed run goes on where it stopped when it is
started again. `lm4ve.ImageNetShards`, `lm4ve.VideoShards` and `lm4ve.RepeatAugVideoShards` read
what is written (docs/guides/shards.md).
"""

import argparse
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.errors import UserError
from lm4ve.runner.command_line import run_tool
from lm4ve.runner.config import read_config
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.integrity import POLICIES
from lm4ve.tasks.base.shard_writing import Entry, verify_shards, write_shards

#: Task -> the module that says whether its files are whole, and samples of a shard, about 1 GB.
TASKS = {
    'image': ('lm4ve.tasks.base.image_files', 10_000),
    'video': ('lm4ve.tasks.video.corruption', 2_000),
}


def entries_of(cfg: Config, split: str) -> list[Entry]:
    """Return the files of a config's data set.

    Raises:
        UserError: The config has no such data set, or one of samples that are no single files.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise UserError(f'The config has no {split}_dataloader. Fix: another --split.')
    # Files are looked at when they are copied, and not all of them before.
    dataset = DATASETS.build(dict(loader.dataset, verify=False))
    prefixes = [p for p in (getattr(dataset, 'data_prefix', None) or {}).values() if p]
    found = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        path, label = dataset.path_of(info), info.get('gt_label', info.get('label'))
        if label is None:
            raise UserError(f"'{path}' has no label, and samples of shards need one.")
        within = [p for p in prefixes if Path(path).is_relative_to(p)]
        name = Path(path).relative_to(within[0]).as_posix() if within else path
        several = isinstance(label, (list, tuple))
        found.append(Entry(path, name, [int(n) for n in label] if several else int(label)))
    return found


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = p.add_subparsers(dest='kind', required=True)
    write = kinds.add_parser('write', help="write a data set's shards")
    write.add_argument('config', help='of image classification or action recognition')
    write.add_argument('out', help='the folder to write to')
    write.add_argument('--split', default='train', choices=('train', 'val', 'test'))
    write.add_argument(
        '--per-shard', type=int, help='samples; default: 10,000 images, 2,000 videos'
    )
    write.add_argument(
        '--seed', type=int, default=0, help='of the order of the training split; others keep theirs'
    )
    write.add_argument('--workers', type=int, default=1, help='processes; default: 1')
    write.add_argument(
        '--decode', action='store_true', help='look for damage by decoding all files'
    )
    write.add_argument('--on-corrupt', choices=POLICIES, default='skip')
    write.add_argument('--cfg-options', nargs='+', action=DictAction, help='override fields')
    verify = kinds.add_parser('verify', help='compare shards with the hashes in their index')
    verify.add_argument('index', help='<folder>/<split>.index.json')
    return p.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.kind == 'verify':
        print(f'{verify_shards(args.index)} shards are as they were written.')
        return
    if args.per_shard is not None and args.per_shard < 1:
        raise UserError(f'--per-shard={args.per_shard} must be 1 or more. Fix: --per-shard 1000.')
    cfg = read_config(args.config, args.cfg_options)
    task = task_of_config(cfg)
    if task.name not in TASKS:
        raise UserError(
            f"'{args.config}' is a config of {task.title}. Shards are written of image "
            'classification and action recognition.'
        )
    module, per_shard = TASKS[task.name]
    index = write_shards(
        entries_of(cfg, args.split),
        args.out,
        args.split,
        args.per_shard or per_shard,
        partial(import_module(module).find_defect, decode=args.decode),
        seed=args.seed if args.split == 'train' else None,
        on_corrupt=args.on_corrupt,
        workers=args.workers,
    )
    size = sum(s['bytes'] for s in index['shards'])
    print(f'{index["samples"]:,} samples in {len(index["shards"]):,} shards, {size / 1e9:,.2f} GB.')


if __name__ == '__main__':
    run_tool(main)
