"""Mutate files and read them: a damaged file may be refused, and nothing else.

    python tools/dev/fuzz.py --mutations 500
    python tools/dev/fuzz.py --readers ply parquet --seed 7

Every reader gets a small whole file, with bytes flipped, taken out, doubled, cut off or
overwritten. It reads in a process of its own, so that a crash or a hang of a library is
counted and the run goes on. Ends with 1 if there was a traceback, a crash or a hang.
"""

import argparse
import collections
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

import fuzz_readers
import torch

from lm4ve.engine.command_line import run_tool
from lm4ve.engine.tables import print_table
from lm4ve.errors import UserError

OUTCOMES = 'accepted', 'refused', 'traceback', 'crash', 'hang'
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


def outcome_of(read: Callable[[], object]) -> tuple[str, str]:
    """Read; return the outcome and the last lines of a traceback."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            read()
    except UserError:
        return 'refused', ''
    except Exception:
        return 'traceback', ''.join(traceback.format_exc().splitlines(keepends=True)[-4:])
    return 'accepted', ''


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
            read()
        except Exception:
            Path(f'{log}.error').write_text(traceback.format_exc())
            raise
        for number in numbers:
            kind, data = mutate(whole, random.Random(f'{name} {seed} {number}'))
            file.write_bytes(data)
            print(json.dumps([number, kind]), file=out, flush=True)
            signal.alarm(PATIENCE)  # its default ends the process
            print(json.dumps(outcome_of(read)), file=out, flush=True)
            signal.alarm(0)


def fuzz(name: str, mutations: int, seed: int, keep: Path | None = None) -> list[tuple]:
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
    rows, bad = [], []
    for name in args.readers:
        found = fuzz(name, args.mutations, args.seed)
        counts = collections.Counter(outcome for _, _, outcome, _ in found)
        cut = sum(kind == 'cut' and outcome == 'accepted' for _, kind, outcome, _ in found)
        rows.append(dict(reader=name, **{o: str(counts[o]) for o in OUTCOMES}, cut=str(cut)))
        bad += [(name, *f) for f in found if f[2] in OUTCOMES[2:]]
    print_table("Mutations; 'cut' of those accepted had their end cut off", rows)
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
