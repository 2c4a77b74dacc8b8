"""Put a data set of images or videos into shards: few large files in place of many small ones.

    python tools/dataset_converters/shards.py write configs/lm4ve/vit-s_in1k.py \\
        data/imagenet-shards --split train --workers 8
    python tools/dataset_converters/shards.py verify data/imagenet-shards/train.index.json

The samples are those of the config's data set of that split, whose paths can be overridden by
--cfg-options. Files are copied as they are. A shard gets its name when it is whole; a killed run
continues with the first shard that is missing when it is started again. WebDataset reads the same
files; `lm4ve.ImageNetShards`, `lm4ve.VideoShards` and `lm4ve.RepeatAugVideoShards` read them here
(docs/guides/shards.md).
"""

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.errors import UserError, check, listing
from lm4ve.files import replacing, write_json, write_text
from lm4ve.runner.command_line import run_tool
from lm4ve.runner.config import read_config
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.integrity import POLICIES, SkippedFiles
from lm4ve.tasks.base.parallel_map import exclusive, parallel_map
from lm4ve.tasks.base.shards import HEADER, VERSION, index_path, read_index

#: Task -> the module that checks its files, and samples of a shard, about 1 GB.
TASKS = {
    'image': ('lm4ve.tasks.base.image_files', 10_000),
    'video': ('lm4ve.tasks.video.corruption', 2_000),
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
    quiet: bool = False,
) -> dict[str, Any]:
    """Write the shards of a split and their index; shards that exist are kept.

    Args:
        entries (Sequence[Entry]): The samples.
        folder (str | Path): The output folder.
        split (str): The prefix of the shards' names.
        per_shard (int): Samples of a shard.
        find_defect (callable): Returns what is wrong with a file, or None; picklable.
        seed (int, optional): Shuffles the samples. Default: their order is kept.
        on_corrupt (str): 'skip' leaves corrupt files out and counts them; 'refuse' stops.
        workers (int): Processes; each writes a shard.
        quiet (bool): Hide the progress bar.

    Returns:
        dict: The index, see :func:`lm4ve.tasks.base.shards.read_index`.

    Raises:
        UserError: Another run writes there; the folder has shards of other samples; a
            file is corrupt, with 'refuse'.
    """
    order = np.arange(len(entries))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    digest = hashlib.sha256(f'{VERSION} {per_shard} {seed}'.encode())
    for e in entries:
        digest.update(json.dumps([e.name, e.label]).encode())
    source, jobs = digest.hexdigest(), []
    for number, start in enumerate(range(0, len(entries), per_shard)):
        chosen = [entries[i] for i in order[start : start + per_shard]]
        jobs.append((Path(folder, f'{split}-{number:06d}.tar'), start, chosen))
    index, skipped = index_path(folder, split), SkippedFiles(on_corrupt)
    with exclusive(index):
        note = index.with_name(f'{split}.source')
        if note.is_file() and note.read_text(encoding='utf-8') != source:
            raise UserError(f"'{note}': the shards there are of other samples. Fix: remove them.")
        write_text(source, note)
        write = partial(_write_shard, find_defect, on_corrupt, source)
        done = parallel_map(write, jobs, f'writing shards of {split}', workers, quiet)
        shards = []
        for note in sorted(done, key=lambda note: note['name']):
            skipped.merge(note['skipped'], note['examples'])
            shards.append({k: note[k] for k in ('name', 'bytes', 'sha256')})
            shards[-1]['samples'] = len(note['samples'])
        skipped.warn('write shards', len(entries))
        total = sum(shard['samples'] for shard in shards)
        write_json(dict(version=VERSION, samples=total, source=source, shards=shards), index)
    return read_index(index)


def verify_shards(index: str | Path) -> int:
    """Read all shards of an index, compare their hashes, and return how many there are.

    Raises:
        UserError: A shard has another content.
    """
    shards = read_index(index)['shards']
    wrong = [s['name'] for s in shards if _hash(Path(index).with_name(s['name'])) != s['sha256']]
    if wrong:
        raise UserError(f"'{index}': {len(wrong)} shards have another SHA-256: {listing(wrong)}.")
    return len(shards)


def _write_shard(
    find_defect: Callable[[str], str | None],
    on_corrupt: str,
    source: str,
    job: tuple[Path, int, Sequence[Entry]],
) -> dict[str, Any]:
    """Write a shard and its list, unless both exist; return the list."""
    path, start, entries = job
    note_path = path.with_suffix('.json')
    if path.is_file() and note_path.is_file():
        note: dict[str, Any] = json.loads(note_path.read_bytes())
        if note['source'] == source and note['bytes'] == path.stat().st_size:
            return note
    skipped, rows = SkippedFiles(on_corrupt), []
    with replacing(path) as beside:
        with tarfile.open(beside, 'w') as tar:
            for number, entry in enumerate(entries, start):
                if defect := find_defect(entry.path):
                    skipped.add('corrupt', UserError(f"'{entry.path}' {defect}."))
                    continue
                data = Path(entry.path).read_bytes()
                labels = entry.label if isinstance(entry.label, list) else [entry.label]
                _add(tar, f'{number:09d}.cls', ' '.join(map(str, labels)).encode())
                offset = tar.offset + HEADER
                _add(tar, f'{number:09d}{Path(entry.name).suffix.lower()}', data)
                rows.append([entry.name, offset, len(data), entry.label])
        note = dict(
            name=path.name,
            bytes=beside.stat().st_size,
            sha256=_hash(beside),
            source=source,
            skipped=skipped.counts,
            examples=skipped.examples,
            samples=rows,
        )
    write_text(json.dumps(note), note_path)
    return note


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o444
    tar.addfile(info, io.BytesIO(data))


def _hash(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def entries_of(cfg: Config, split: str) -> list[Entry]:
    """Return the files of a config's data set."""
    # Files are checked when they are copied, and not all of them before.
    dataset = DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, verify=False))
    prefixes = [p for p in (getattr(dataset, 'data_prefix', None) or {}).values() if p]
    found = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        path, label = dataset.path_of(info), info['gt_label' if 'gt_label' in info else 'label']
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
    cfg = read_config(args.config, args.cfg_options)
    task = task_of_config(cfg)
    check('The task of the config', task.name, choices=TASKS)
    module, per_shard = TASKS[task.name]
    check('--per-shard', args.per_shard or per_shard, least=1)
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
