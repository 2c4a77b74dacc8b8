"""Read damaged files: they may be refused, and nothing worse may happen.

    python tools/dev/fuzz.py --mutations 500
    python tools/dev/fuzz.py --readers ply argoverse-parquet --seed 7

Every reader of fuzz_readers.py gets a small whole file with bytes flipped, removed,
doubled, cut off or overwritten, or a pickle in its place that ends the process if it is
unpickled. It reads in a process of its own, so that the run survives a crash or a hang.
An outcome is one of

    refused   any exception
    same      the content of the whole file
    other     other content, which no reader can detect where the format has no checksum
    record    cut where a record ends, in a format that does not count its records
    cut       cut anywhere else, and read as if it were whole
    crash     the process died, or a pickle ran
    hang      no end after 30 seconds

The last three are failures; with one of them the command ends with 1.
"""

import collections
import contextlib
import dataclasses
import gc
import hashlib
import io
import multiprocessing
import os
import pickle
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterable
from multiprocessing.connection import Connection

import fuzz_readers
import numpy as np
import torch

from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.runner.tables import print_table

GOOD = ('refused', 'same', 'other', 'record')
BAD = ('cut', 'crash', 'hang')
#: Seconds after which a reader hangs.
PATIENCE = 30
#: What may stand in the place of a number.
WORDS = (
    bytes(8),
    b'\xff' * 8,
    b'\xff\xff\xff\x7f',
    b'nan',
    b'-1',
    b'null',
    b'1e99',
)


class EndsProcess:
    """An object whose unpickling ends the process."""

    def __reduce__(self) -> tuple:
        return os._exit, (99,)


def hostile_pickle(rng: random.Random) -> bytes:
    """Return a pickle as itself, in torch's format or in numpy's."""
    out = io.BytesIO()
    save = rng.choice([pickle.dump, torch.save, np.save])
    if save is np.save:
        array = np.array([EndsProcess()], dtype=object)
        np.save(out, array, allow_pickle=True)
    else:
        save(dict(state_dict=EndsProcess()), out)
    return out.getvalue()


def mutate(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return the kind of mutation and the mutated bytes."""
    kind = rng.choice(
        ['flip', 'flip', 'word', 'cut', 'cut', 'drop', 'double', 'digit', 'pickle']
    )
    at = rng.randrange(len(data))
    end = min(len(data), at + 1 + rng.randrange(min(64, len(data))))
    if kind == 'flip':
        out = bytearray(data)
        for _ in range(rng.choice([1, 1, 4, 16])):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        return kind, bytes(out)
    if kind == 'digit':
        at = rng.choice([i for i, b in enumerate(data) if 48 <= b <= 57] or [at])
    word = rng.choice(WORDS)
    # What stands in the place of which bytes.
    start, stop, new = {
        'word': (at, at + len(word), word),
        'cut': (at, len(data), b''),
        'drop': (at, end, b''),
        'double': (at, at, data[at:end]),
        'digit': (at, at + 1, bytes([rng.choice(b'0123456789-')])),
        'pickle': (0, len(data), hostile_pickle(rng)),
    }[kind]
    return kind, data[:start] + new + data[stop:]


def digest(value: object) -> str:
    """Return a hash of nested containers, data classes, arrays and tensors."""
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.asarray(value)
        content = hashlib.sha256(array.tobytes()).hexdigest()
        parts = [array.dtype, array.shape, content]
    elif isinstance(value, list | tuple):
        parts = [digest(entry) for entry in value]
    elif isinstance(value, dict):
        parts = [(key, digest(entry)) for key, entry in value.items()]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        parts = [(field.name, digest(getattr(value, field.name))) for field in fields]
    else:
        parts = [value]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def outcome_if_different(name: str, whole: bytes, data: bytes) -> str:
    """Return the outcome of reading a mutated file as other content than the whole file's."""
    if len(data) >= len(whole) or not whole.startswith(data):
        return 'other'
    rest = whole[len(data) :]
    at_end_of_record = not data or data.endswith(b'\n') or rest.startswith(b'\n')
    if name in fuzz_readers.UNCOUNTED and at_end_of_record:
        return 'record'
    return 'cut'


def work(
    name: str, folder: str, seed: int, numbers: Iterable[int], results: Connection
) -> None:
    """Read mutated files in this process and send the kind and the outcome of each."""
    torch.set_num_threads(1)  # the parent's pool of threads does not survive the fork
    warnings.simplefilter('ignore')
    os.chdir(folder)
    file, read = fuzz_readers.READERS[name](name)
    fuzz_readers.start_anew()
    whole = file.read_bytes()
    expected = digest(read())
    gc.freeze()  # MMEngine collects garbage for each data set: a second, among all modules
    with open(os.devnull, 'w') as nothing:
        for stream in (1, 2):  # libraries print what they find wrong
            os.dup2(nothing.fileno(), stream)
    for number in numbers:
        kind, data = mutate(whole, random.Random(f'{name} {seed} {number}'))
        file.write_bytes(data)
        results.send(kind)
        fuzz_readers.start_anew()
        signal.alarm(PATIENCE)  # ends the process
        try:
            is_same = digest(read()) == expected
            outcome = 'same' if is_same else outcome_if_different(name, whole, data)
        except Exception:
            outcome = 'refused'
        signal.alarm(0)
        results.send(outcome)


def fuzz(name: str, mutations: int, seed: int) -> list[tuple[str, str]]:
    """Return the kind of mutation and the outcome of each mutated file of a reader.

    Raises:
        RuntimeError: The reader cannot read its whole file.
    """
    outcomes: list[tuple[str, str]] = []
    context = multiprocessing.get_context('fork')
    # A process that is ended, or crashes, has a successor for the rest.
    while len(outcomes) < mutations:
        receiving, sending = context.Pipe(duplex=False)
        kind = None
        with tempfile.TemporaryDirectory() as folder, receiving:
            numbers = range(len(outcomes), mutations)
            child = context.Process(
                target=work, args=(name, folder, seed, numbers, sending)
            )
            child.start()
            sending.close()
            with contextlib.suppress(EOFError):
                while True:
                    kind = receiving.recv()
                    outcome = receiving.recv()
                    outcomes.append((kind, outcome))
                    kind = None
            child.join()
        if kind is not None:
            was_ended_by_alarm = child.exitcode == -signal.SIGALRM
            outcomes.append((kind, 'hang' if was_ended_by_alarm else 'crash'))
        elif len(outcomes) < mutations:
            raise RuntimeError(f'{name}: its whole file cannot be read')
    return outcomes


def main(argv: list[str] | None = None) -> None:
    """Print how often each reader had each outcome, then each bad one.

    The command ends with 1 if there is a bad one.
    """
    parser = build_parser(__doc__, {})
    add = parser.add_argument
    every = sorted(fuzz_readers.READERS)
    add('--readers', nargs='+', choices=every, default=every, metavar='NAME')
    add('--mutations', type=int, default=100, help='of each reader')
    add('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    rows = []
    failures = []
    for name in args.readers:
        outcomes = fuzz(name, args.mutations, args.seed)
        counts = collections.Counter(outcome for _, outcome in outcomes)
        row = dict(reader=name)
        for outcome in GOOD + BAD:
            row[outcome] = str(counts[outcome])
        rows.append(row)
        for number, (mutation, outcome) in enumerate(outcomes):
            if outcome in BAD:
                failures.append(f'{name}: {outcome} in mutation {number} ({mutation})')
    print_table(f'Outcomes of {args.mutations} mutations', rows)
    for line in failures:
        print(line)
    if failures:
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
