"""Put a data set of images or videos into shards: few large files in place of many small ones.

    python tools/dataset_converters/shards.py write configs/lm4ve/vit-s_in1k.py \\
        data/imagenet-shards --split train --workers 8
    python tools/dataset_converters/shards.py verify
    data/imagenet-shards/train.index.json

The samples are those of the config's data set of that split, whose paths can be
overridden by --cfg-options. Files are copied as they are. A shard gets its name when it
is whole; a killed run continues with the first shard that is missing when it is started
again. WebDataset reads the same files; `lm4ve.ImageNetShards`, `lm4ve.VideoShards` and
`lm4ve.RepeatAugVideoShards` read them here (docs/guides/shards.md).
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from tqdm import tqdm

from lm4ve.data.integrity import POLICIES, SkippedFiles
from lm4ve.data.shards import HEADER
from lm4ve.errors import UserError, check, listing
from lm4ve.files import clear_left_behind, replacing, sole_use, write_text
from lm4ve.runner.cfg_options import OptionsAction
from lm4ve.runner.command_line import build_parser, read_config, run_tool
from lm4ve.tasks import task_of_config

#: Task -> the module that checks its files, and samples of a shard, about 1 GB.
TASKS = {
    'image': ('lm4ve.data.image_files', 10_000),
    'video': ('lm4ve.tasks.video.datasets.video_files', 2_000),
}


class Entry(NamedTuple):
    """A file that becomes a sample.

    Attributes:
        path (str): The file.
        name (str): Its name in messages from then on.
        label (int or list[int]): Its class, or its classes.
    """

    path: str
    name: str
    label: Any


def write_shards(
    entries: Sequence[Entry],
    folder: str | Path,
    split: str,
    per_shard: int,
    find_defect: Callable[[str], str | None],
    seed: int | None = None,
    on_corrupt: str = 'skip',
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Write the shards of a split and their index; shards that exist are kept.

    Args:
        entries (Sequence[Entry]): The samples.
        folder (str | Path): The output folder.
        split (str): The prefix of the shards' names.
        per_shard (int): Samples of a shard.
        find_defect (callable): Returns what is wrong with a file, or None.
        seed (int, optional): Shuffles the samples. Default: their order is kept.
        on_corrupt (str): 'skip' leaves corrupt files out and counts them; 'refuse'
            stops.
        workers (int): Threads; each writes a shard.

    Returns:
        list[dict]: ``shards`` of the index: ``name``, ``bytes``, ``sha256`` and
        ``samples`` (rows of name, offset, size and label) of each.

    Raises:
        UserError: Another run writes there; with 'refuse', a file is corrupt.
    """
    count = len(entries)
    order = (
        range(count) if seed is None else np.random.default_rng(seed).permutation(count)
    )
    starts = range(0, len(entries), per_shard)
    groups = [[entries[i] for i in order[n : n + per_shard]] for n in starts]
    paths = [Path(folder, f'{split}-{number:06d}.tar') for number in range(len(groups))]
    index, skipped = Path(folder, f'{split}.index.json'), SkippedFiles(on_corrupt)
    index.parent.mkdir(parents=True, exist_ok=True)
    with sole_use(f'{index}.lock'), ThreadPoolExecutor(workers) as pool:
        clear_left_behind(folder)
        done = pool.map(partial(_write_shard, find_defect, on_corrupt), paths, groups)
        shards = list(
            tqdm(done, f'writing shards of {split}', len(paths), disable=None)
        )
        for shard in shards:
            skipped.merge(shard.pop('skipped'), shard.pop('examples'))
        skipped.warn('write shards', len(entries))
        write_text(json.dumps(dict(shards=shards)), index)
    return shards


def _write_shard(
    find_defect: Callable[[str], str | None],
    on_corrupt: str,
    path: Path,
    entries: Sequence[Entry],
) -> dict[str, Any]:
    """Write a shard and its part of the index, unless both exist; return the part."""
    note = path.with_suffix('.json')
    source = hashlib.sha256(
        repr([(e.name, e.label) for e in entries]).encode()
    ).hexdigest()
    part: dict[str, Any] = json.loads(note.read_bytes()) if note.is_file() else {}
    if path.is_file() and part.pop('source', None) == source:
        return part
    skipped, rows = SkippedFiles(on_corrupt), []
    with replacing(path) as beside:
        with tarfile.open(beside, 'w') as tar:
            for number, entry in enumerate(entries):
                if defect := find_defect(entry.path):
                    skipped.add('corrupt', UserError(f"'{entry.path}' {defect}."))
                    continue
                labels = entry.label if isinstance(entry.label, list) else [entry.label]
                key, data = f'{path.stem}-{number:06d}', Path(entry.path).read_bytes()
                parts = {'.cls': ' '.join(map(str, labels)).encode()}
                parts[Path(entry.name).suffix.lower()] = data
                for suffix, content in parts.items():
                    info, start = tarfile.TarInfo(f'{key}{suffix}'), tar.offset + HEADER
                    info.size, info.mode = len(content), 0o444
                    tar.addfile(info, io.BytesIO(content))
                rows.append([entry.name, start, len(data), entry.label])
        part = dict(name=path.name, bytes=beside.stat().st_size, sha256=_hash(beside))
    part |= dict(samples=rows, skipped=skipped.counts, examples=skipped.examples)
    write_text(json.dumps(part | dict(source=source)), note)
    return part


def _hash(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def verify_shards(index: str | Path) -> int:
    """Read all shards of an index, compare their hashes, and return how many there are.

    Raises:
        UserError: A shard has another content.
    """
    shards = json.loads(Path(index).read_bytes())['shards']
    wrong = [
        s['name']
        for s in shards
        if _hash(Path(index).with_name(s['name'])) != s['sha256']
    ]
    if wrong:
        raise UserError(
            f"'{index}': {len(wrong)} shards have another SHA-256: {listing(wrong)}."
        )
    return len(shards)


def entries_of(cfg: Config, split: str) -> list[Entry]:
    """Return the files of a config's data set."""
    # Files are checked when they are copied, and not all of them before.
    dataset = DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, verify=False))
    prefixes = [p for p in (getattr(dataset, 'data_prefix', None) or {}).values() if p]
    found = []
    for info in map(dataset.get_data_info, range(len(dataset))):
        path, label = (
            dataset.path_of(info),
            info['gt_label' if 'gt_label' in info else 'label'],
        )
        within = [p for p in prefixes if Path(path).is_relative_to(p)]
        name = Path(path).relative_to(within[0]).as_posix() if within else path
        found.append(Entry(path, name, np.asarray(label).tolist()))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    p = build_parser(__doc__, {})
    kinds = p.add_subparsers(dest='kind', required=True)
    add = kinds.add_parser('write', help="write a data set's shards").add_argument
    add('config', help='of image classification or action recognition')
    add('out', help='the folder to write to')
    add('--split', default='train', choices=('train', 'val', 'test'))
    add('--per-shard', type=int, help='samples; default: 10,000 images, 2,000 videos')
    add('--seed', type=int, default=0, help='of the order of the training split')
    add('--workers', type=int, default=1, help='threads; default: 1')
    add('--decode', action='store_true', help='look for damage by decoding all files')
    add('--on-corrupt', choices=POLICIES, default='skip')
    add('--cfg-options', nargs='+', action=OptionsAction, help='override fields')
    verify = kinds.add_parser(
        'verify', help='compare shards with the hashes in their index'
    )
    verify.add_argument('index', help='<folder>/<split>.index.json')
    args = p.parse_args(argv)
    if args.kind == 'verify':
        print(f'{verify_shards(args.index)} shards are as they were written.')
        return
    cfg = read_config(args.config, args.cfg_options)
    task = task_of_config(cfg).name
    check('The task of the config', task, choices=TASKS)
    module, per_shard = TASKS[task]
    find_defect = partial(import_module(module).find_defect, decode=args.decode)
    entries, size = entries_of(cfg, args.split), args.per_shard or per_shard
    seed = args.seed if args.split == 'train' else None
    options = dict(seed=seed, on_corrupt=args.on_corrupt, workers=args.workers)
    shards = write_shards(entries, args.out, args.split, size, find_defect, **options)
    size, count = (
        sum(s['bytes'] for s in shards),
        sum(len(s['samples']) for s in shards),
    )
    print(f'{count:,} samples in {len(shards):,} shards, {size / 1e9:,.2f} GB.')


if __name__ == '__main__':
    run_tool(main)
