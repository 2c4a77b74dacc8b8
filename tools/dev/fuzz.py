"""Mutate files and read them: a damaged file may be refused, and nothing else.

    python tools/dev/fuzz.py --mutations 500
    python tools/dev/fuzz.py --readers ply parquet --seed 7

Every reader gets a small whole file, with bytes flipped, taken out, doubled, cut off or
overwritten. It reads in a process of its own, so that a crash or a hang of a library is
counted and the run goes on. Ends with 1 if there was a traceback, a crash or a hang, or
if what is left of a file that was cut passed for whole.

'same' read what the whole file gives; 'other' is other content, which no reader can tell
from a whole file where the format has no checksum; 'record' was cut where a record ends, in a
format that does not say how many there are, so that a shorter whole file looks the same.
"""

import argparse
import collections
import dataclasses
import gc
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import fuzz_media  # noqa: F401  (adds readers)
import fuzz_readers
import fuzz_scans  # noqa: F401
import fuzz_scenes  # noqa: F401
import fuzz_vision_language  # noqa: F401
import numpy as np
import torch

from lm4ve.cost.tables import print_table
from lm4ve.errors import UserError
from lm4ve.runner.command_line import run_tool

GOOD = 'refused', 'same', 'other', 'record'
BAD = 'cut', 'traceback', 'crash', 'hang'
#: Seconds after which a reader hangs.
PATIENCE = 30


def mutate(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return what was done to some bytes, and the result."""
    kind = rng.choice(['flip', 'flip', 'word', 'cut', 'drop', 'double', 'digit'])
    at = rng.randrange(len(data))
    length = 1 + rng.randrange(min(64, len(data)))
    out = bytearray(data)
    if kind == 'flip':
        for _ in range(rng.choice([1, 1, 4, 16])):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == 'word':
        words = b'\x00' * 8, b'\xff' * 8, b'\xff' * 3 + b'\x7f', b'nan', b'-1', b'null', b'1e99'
        word = rng.choice(words)
        out[at : at + len(word)] = word
    elif kind == 'cut':
        del out[at:]
    elif kind == 'drop':
        del out[at : at + length]
    elif kind == 'double':
        out[at:at] = out[at : at + length]
    else:
        digits = [i for i, b in enumerate(out) if 48 <= b <= 57] or [at]
        out[rng.choice(digits)] = rng.choice(b'0123456789-')
    return kind, bytes(out)


def digest(value: object) -> str:
    """Return a hash of what a reader gave: arrays, tensors, data classes, plain things."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        value = [(k, digest(v)) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        value = [digest(v) for v in value]
    if isinstance(value, np.ndarray):
        data = f'{value.dtype} {value.shape}'.encode() + value.tobytes()
    else:
        data = repr(value).encode()
    return hashlib.sha256(data).hexdigest()


def outcome_of(read: Callable[[], object], whole: str, cut: str = '') -> tuple[str, str]:
    """Read a mutated file.

    Args:
        read (callable): Reads it.
        whole (str): The :func:`digest` of what the whole file gives.
        cut (str): What it is if something else is read: 'other', 'record' or 'cut'.

    Returns:
        tuple[str, str]: The outcome, and the last lines of a traceback.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            found = digest(read())
    except UserError:
        return 'refused', ''
    except Exception:
        return 'traceback', ''.join(traceback.format_exc().splitlines(keepends=True)[-4:])
    return 'same' if found == whole else cut or 'other', ''


def kind_of_cut(name: str, whole: bytes, data: bytes) -> str:
    """Return 'record' or 'cut' for data that lack their end only, else 'other'."""
    if len(data) >= len(whole) or not whole.startswith(data):
        return 'other'
    lines = name in fuzz_readers.LINES_WITHOUT_COUNT
    at_end = not data or data.endswith(b'\n') or whole[len(data) :].startswith(b'\n')
    return 'record' if lines and at_end else 'cut'


def work(name: str, folder: str, seed: int, numbers: Sequence[int], log: str) -> None:
    """Do some mutations; a line before and after each one says how far it came."""
    torch.set_num_threads(1)  # a parent's pool of threads does not survive the fork
    with open(os.devnull, 'w') as nothing:
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)
    made = Path(folder) / 'whole'
    with open(log, 'a') as out:
        try:
            file, read = fuzz_readers.READERS[name](made)
            whole = file.read_bytes()
            expected = digest(read())
            gc.freeze()  # MMEngine collects garbage for each data set: a second, among all modules
        except Exception:
            Path(f'{log}.error').write_text(traceback.format_exc())
            raise
        for number in numbers:
            kind, data = mutate(whole, random.Random(f'{name} {seed} {number}'))
            file.write_bytes(data)
            print(json.dumps([number, kind]), file=out, flush=True)
            signal.alarm(PATIENCE)  # its default ends the process
            outcome = outcome_of(read, expected, kind_of_cut(name, whole, data))
            print(json.dumps(outcome), file=out, flush=True)
            signal.alarm(0)


def fuzz(name: str, mutations: int, seed: int) -> list[tuple]:
    """Return number, kind of mutation, outcome and text of each mutation of a reader."""
    found: list[tuple] = []
    context = multiprocessing.get_context('fork')
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, 'log')
        while len(found) < mutations:
            log.write_text('')
            shutil.rmtree(Path(folder, 'whole'), ignore_errors=True)
            Path(folder, 'whole').mkdir()
            left = range(len(found), mutations)
            child = context.Process(target=work, args=(name, folder, seed, left, str(log)))
            child.start()
            child.join()
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            if not lines:
                text = Path(f'{log}.error').read_text()
                raise RuntimeError(f'{name}: its whole file cannot be read\n{text}')
            for (number, kind), (outcome, text) in zip(lines[::2], lines[1::2], strict=False):
                found.append((number, kind, outcome, text))
            if len(lines) % 2:  # it ended in the middle of one
                outcome = 'hang' if child.exitcode == -signal.SIGALRM else 'crash'
                found.append((*lines[-1], outcome, f'exit code {child.exitcode}'))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = sorted(fuzz_readers.READERS)
    parser.add_argument('--readers', nargs='+', choices=every, default=every, metavar='NAME')
    parser.add_argument('--mutations', type=int, default=100, help='of each reader')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    rows, bad, records = [], [], []
    for name in args.readers:
        found = fuzz(name, args.mutations, args.seed)
        counts = collections.Counter(outcome for _, _, outcome, _ in found)
        numbers = {o: str(counts[o]) for o in GOOD + BAD}
        rows.append(dict(reader=name, mutations=str(len(found)), **numbers))
        bad += [(name, *f) for f in found if f[2] in BAD]
        records += [name] * (counts['record'] > 0)
    print_table("Mutations, and what became of them ('cut': passed for whole)", rows)
    for name in records:
        print(f'{name}, cut at the end of a record: {fuzz_readers.LINES_WITHOUT_COUNT[name]}')
    # One example of each kind of failure: its reader and the error's type.
    alike = collections.defaultdict(list)
    for name, number, kind, outcome, text in bad:
        last = (text.strip().splitlines() or [''])[-1]
        alike[name, outcome, last.partition(':')[0]].append((number, kind, text))
    for (name, outcome, _), examples in alike.items():
        number, kind, text = examples[0]
        print(f'{name}: {len(examples)} x {outcome}, first {number} ({kind})\n{text}')
    if bad:
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
