"""Mutate the library at random places, and see whether the tests of the room fail.

    python tools/dev/mutations.py --draw 0          # draw a list, by a seed
    python tools/dev/mutations.py --run             # run those that have no verdict yet
    python tools/dev/mutations.py --compare         # the stored list on the present tree
    python tools/dev/mutations.py --table           # what the stored results say

A mutation changes one operator, constant, comparison, condition or early exit of one
function. It is run against the tests of its room that enter the function, the shortest
first, as long as their CPU time sums up to at most three minutes; it is caught if one
fails. Which test enters which function, and how long it takes, is recorded on the tree at
hand. Tests marked slow run only where no other enters the function.

List and verdicts are in ``docs/results/mutations``, a file for each room. ``--compare``
exits with 1 if a mutation survives that was caught before; one whose function or line is
gone is named. All that is read again after an interruption is in ``work_dirs/mutations``.

mutmut and cosmic-ray draw no seeded sample, name a mutation by its place in the file, and
start a new interpreter for each, which here imports for ten seconds: hence our own.
"""

import argparse
import collections
import concurrent.futures
import fnmatch
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from mutating.recording import record
from mutating.running import (
    Outcome,
    Tree,
    end_with_parent,
    files_of,
    import_libraries,
    run_tests,
)
from mutating.sources import (
    Mutation,
    Place,
    draw,
    locate,
    mutate,
    mutated_line,
    read_sources,
)

STORED = 'docs/results/mutations'
#: Room -> its files below ``projects/lm4ve``, and the folders of its tests.
ROOMS = {
    'blocks': (('blocks/*',), ('tests/blocks',)),
    'necks': (('necks/*',), ('tests/necks',)),
    'runner': (('runner/*',), ('tests/runner',)),
    'data': (('data/*',), ('tests/data', 'tests/tasks/*')),
    'metrics': (('tasks/*/metrics.py', 'tasks/*/metrics/*'), ('tests/tasks/*',)),
}
MUTATIONS_OF_ROOM = 30
#: CPU seconds of the tests that a mutation is run against, at most.
SECONDS = 180.0
QUICK = 'not slow and not walk and not slurm and not cuda'
SLOW = 'slow and not walk and not slurm and not cuda'
FIELDS = ('file', 'function', 'kind', 'line', 'before', 'after', 'occurrence')


class Recording:
    """What the tests of a room enter, and how long they take.

    Args:
        parts (list[dict]): Of its folders: see :func:`mutating.recording.record`.
    """

    def __init__(self, parts: list[dict]) -> None:
        self.seconds: dict[str, float] = {}
        self._cpu: dict[str, float] = {}
        self._fixtures: dict[str, list[str]] = {}
        self._tests_of: dict[str, set[str]] = collections.defaultdict(set)
        self._imported: set[str] = set()
        self.failed: list[str] = []
        for part in parts:
            self._add(part)

    def _add(self, part: dict) -> None:
        functions = part['functions']
        self._imported |= {functions[number] for number in part['imports']}
        for name, fixture in part['fixtures'].items():
            self._cpu[name] = fixture['cpu']
        for test, row in part['tests'].items():
            if not row['passed']:
                self.failed.append(test)
                continue
            fixtures = [
                part['fixtures'][name]
                for name in row['fixtures']
                if name in part['fixtures']
            ]
            self._cpu[test] = row['cpu']
            self._fixtures[test] = row['fixtures']
            self.seconds[test] = row['wall'] + sum(f['wall'] for f in fixtures)
            for source in (row, *fixtures):
                for number in source['entered']:
                    self._tests_of[functions[number]].add(test)

    def select(self, file: str, function: str, seconds: float) -> list[str]:
        """Return the tests that enter a function, the shortest of them, by their files.

        What is entered when a module is imported concerns every test.
        """
        name = f'{file}::{function}'
        tests = self._tests_of.get(name, set())
        if name in self._imported:
            tests = tests | set(self._fixtures)
        left = seconds
        chosen = []
        made: set[str] = set()
        for test in sorted(tests, key=lambda test: (self._cost(test, set()), test)):
            cost = self._cost(test, made)
            if cost <= left or not chosen:
                left -= cost
                chosen.append(test)
                made.update(self._fixtures[test])
        of_file: dict[str, float] = collections.Counter()
        for test in chosen:
            of_file[test.partition('::')[0]] += self._cpu[test]
        # A file at a time, or the fixtures of its module would be made again and again.
        return sorted(
            chosen,
            key=lambda test: (
                of_file[test.partition('::')[0]],
                test.partition('::')[0],
                self._cpu[test],
                test,
            ),
        )

    def _cost(self, test: str, made: set[str]) -> float:
        fixtures = [name for name in self._fixtures[test] if name not in made]
        return self._cpu[test] + sum(self._cpu.get(name, 0.0) for name in fixtures)


def read_room(folder: Path, room: str) -> dict:
    return json.loads((folder / f'{room}.json').read_text(encoding='utf-8'))


def write_room(folder: Path, room: str, content: dict) -> None:
    """Write a file whole, or leave it as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{room}.json'
    new = path.with_suffix('.new')
    new.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    new.replace(path)


def draw_rooms(checkout: Path, rooms: list[str], count: int, seed: int) -> None:
    """Draw and store the list of each room, without verdicts."""
    sources = read_sources(checkout / 'projects/lm4ve')
    command = ['git', 'rev-parse', 'HEAD']
    commit = subprocess.run(command, cwd=checkout, capture_output=True, check=True)
    for room in rooms:
        patterns = ROOMS[room][0]

        def is_in_room(file: str, patterns: tuple[str, ...] = patterns) -> bool:
            return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)

        rows = []
        drawn = draw(sources, is_in_room, count, f'{seed} {room}')
        for number, mutation in enumerate(drawn):
            row = dict(id=f'{room}-{number:02}', **asdict(mutation))
            place = locate(mutation, sources)
            assert isinstance(place, Place)
            row['becomes'] = mutated_line(sources[mutation.file], place)
            rows.append(row)
        head = dict(room=room, seed=seed, commit=commit.stdout.decode().strip())
        write_room(checkout / STORED, room, dict(**head, mutations=rows))


def name_of_tree(checkout: Path) -> str:
    """Return a hash of all that a verdict depends on."""
    content = hashlib.sha256()
    for name in files_of(checkout):
        if name.startswith(('projects/', 'tests/', 'configs/', 'tools/')):
            content.update(f'{name}\0'.encode())
            if (checkout / name).is_file():
                content.update((checkout / name).read_bytes())
    return content.hexdigest()[:12]


class Session:
    """Runs mutations of one tree, several at a time.

    Args:
        checkout (Path): The tree.
        work (Path): Where recordings and outputs are kept.
        jobs (int): How many processes run tests.
    """

    def __init__(self, checkout: Path, work: Path, jobs: int) -> None:
        self.checkout = checkout
        self.work = work
        #: Tests that fail without a mutation.
        self.left_out: set[str] = set()
        self.sources = read_sources(checkout / 'projects/lm4ve')
        import_libraries()
        context = multiprocessing.get_context('fork')
        self._trees = [Tree(checkout) for _ in range(jobs)]
        queue = context.SimpleQueue()
        for number in range(jobs):
            queue.put(number)
        self._pool = concurrent.futures.ProcessPoolExecutor(
            jobs,
            mp_context=context,
            initializer=_take_tree,
            initargs=(self._trees, queue),
        )

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        for tree in self._trees:
            tree.remove()

    def recording(self, room: str, marks: str) -> Recording:
        """Return what the tests of a room enter; record the folders that are not yet."""
        folders = []
        for pattern in ROOMS[room][1]:
            folders += sorted(self.checkout.glob(pattern))
        names = [
            folder.relative_to(self.checkout).as_posix()
            for folder in folders
            if any(folder.rglob('test_*.py'))
        ]
        jobs = [
            self._pool.submit(_record, self.checkout, self.work, name, marks)
            for name in names
        ]
        recording = Recording([job.result() for job in jobs])
        self.left_out.update(recording.failed)
        return recording

    def verdicts(self, room: str, rows: list[dict], seconds: float) -> Iterator[dict]:
        """Yield each row with its verdict, as it comes.

        Args:
            room (str): Of which.
            rows (list[dict]): The mutations.
            seconds (float): See :data:`SECONDS`.
        """
        left = []
        for row in rows:
            stored = Mutation(**{name: row[name] for name in FIELDS})
            place = locate(stored, self.sources)
            if isinstance(place, str):
                yield row | dict(verdict='gone', killed_by='', tests=0, note=place)
            else:
                left.append((row, place))
        for marks in (QUICK, SLOW):
            if not left:
                return
            recording = self.recording(room, marks)
            jobs = []
            uncovered = []
            for row, place in left:
                there = place.mutation
                tests = recording.select(there.file, there.function, seconds)
                if tests:
                    jobs.append(self._submit(row, place, tests, recording))
                else:
                    uncovered.append((row, place))
            for job in concurrent.futures.as_completed(jobs):
                ran, unfit = job.result()
                self.left_out.update(unfit)
                yield ran
            left = uncovered
        for row, _ in left:
            yield row | dict(verdict='not covered', killed_by='', tests=0)

    def _submit(
        self, row: dict, place: Place, tests: list[str], recording: Recording
    ) -> concurrent.futures.Future:
        file = place.mutation.file
        mutated = mutate(self.sources[file], place)
        seconds = {test: recording.seconds[test] for test in tests}
        return self._pool.submit(_run, self.work, row, file, mutated, tests, seconds)


_tree: Tree


def _take_tree(trees: list[Tree], numbers: SimpleQueue) -> None:
    global _tree
    end_with_parent()
    _tree = trees[numbers.get()]


def _record(checkout: Path, work: Path, folder: str, marks: str) -> dict:
    name = folder.replace('/', '_')
    if marks == SLOW:
        name += '-slow'
    kept = work / f'{name}.json'
    if not kept.exists():
        print(f'{folder} is recorded', flush=True)
        content = record(checkout, [folder], marks, work / f'{name}.txt')
        new = kept.with_suffix('.new')
        new.write_text(json.dumps(content), encoding='utf-8')
        new.replace(kept)
    return json.loads(kept.read_text(encoding='utf-8'))


def _run(
    work: Path,
    row: dict,
    file: str,
    mutated: bytes,
    tests: list[str],
    seconds: dict[str, float],
) -> tuple[dict, list[str]]:
    """Run a mutation.

    Args:
        work (Path): Gets what the tests print.
        row (dict): The mutation.
        file (str): Which file has another content.
        mutated (bytes): Which.
        tests (list[str]): The ids of the tests, in their order.
        seconds (dict[str, float]): How long each was recorded to take.

    Returns:
        tuple: The row with the verdict, and the tests that failed, but fail without
        the mutation too.
    """
    unfit: list[str] = []
    left = tests
    count = 0
    while left:
        outcome = _run_mutated(work / f'{row["id"]}.txt', file, mutated, left, seconds)
        count += len(outcome.tests)
        if outcome.how == 'passed':
            break
        failed = outcome.failed
        is_test = failed in seconds
        is_unfit = is_test and not _passes_unmutated(work, failed, seconds)
        is_alone = not is_test or failed == left[0]
        if not is_unfit and not is_alone:
            # It may fail because of the tests before it.
            output = work / f'{row["id"]}-alone.txt'
            is_alone = (
                _run_mutated(output, file, mutated, [failed], seconds).how != 'passed'
            )
        if not is_unfit and is_alone:
            killer = failed
            if outcome.how != 'failed':
                killer = f'{outcome.how}: {failed}'
            return row | dict(verdict='caught', killed_by=killer, tests=count), unfit
        if is_unfit:
            unfit.append(failed)
        if outcome.how == 'failed':
            count -= 1
        left = left[left.index(failed) + 1 :]
    verdict = 'survived' if count > 0 else 'not covered'
    return row | dict(verdict=verdict, killed_by='', tests=max(count, 0)), unfit


def _run_mutated(
    output: Path, file: str, mutated: bytes, tests: list[str], seconds: dict[str, float]
) -> Outcome:
    """Run tests, up to the first that fails, on a tree in which one file is mutated."""
    files = list(dict.fromkeys(test.partition('::')[0] for test in tests))
    _tree.restore()
    _tree.replace(file, mutated)
    outcome = run_tests(_tree, files, tests, seconds, ('-x',), output)
    _tree.restore()
    return outcome


def _passes_unmutated(work: Path, test: str, seconds: dict[str, float]) -> bool:
    """Return whether a test passes by itself where nothing is mutated; ask once."""
    name = hashlib.sha256(test.encode()).hexdigest()[:16]
    kept = work / 'alone' / f'{name}.json'
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        output = kept.with_suffix('.txt')
        file = test.partition('::')[0]
        outcome = run_tests(_tree, [file], [test], seconds, (), output)
        kept.write_text(json.dumps([test, outcome.how]), encoding='utf-8')
    return json.loads(kept.read_text(encoding='utf-8'))[1] == 'passed'


def run_rooms(
    session: Session,
    rooms: list[str],
    stored: Path,
    results: Path,
    seconds: float | None,
) -> None:
    """Run what has no verdict yet, and write each verdict as it comes.

    Args:
        session (Session): Of the tree.
        rooms (list[str]): Which.
        stored (Path): The folder of the lists.
        results (Path): The folder of the lists with verdicts; may be the same.
        seconds (float, optional): See :data:`SECONDS`; None: as stored.
    """
    for room in rooms:
        if results == stored or (results / f'{room}.json').exists():
            content = read_room(results, room)
        else:
            content = read_room(stored, room)
            for row in content['mutations']:
                for name in ('verdict', 'killed_by', 'tests', 'note'):
                    row.pop(name, None)
        content['seconds'] = seconds or content.get('seconds', SECONDS)
        rows = {row['id']: row for row in content['mutations']}
        left = [row for row in rows.values() if 'verdict' not in row]
        if not left:
            continue
        session.left_out = set(content.get('left_out', []))
        for row in session.verdicts(room, left, content['seconds']):
            rows[row['id']] = row
            content['left_out'] = sorted(session.left_out)
            content['mutations'] = list(rows.values())
            write_room(results, room, content)
            now = time.strftime('%H:%M:%S')
            print(now, row['id'], row['verdict'], row['killed_by'], flush=True)


def compare(before: list[dict], now: list[dict]) -> tuple[dict[str, list[str]], bool]:
    """Compare verdicts on the stored list and on the present tree.

    Returns:
        tuple: Title -> a line for each mutation; whether one survives that was caught.
    """
    new = {row['id']: row for row in now}
    lost: list[str] = []
    gone: list[str] = []
    won: list[str] = []
    for row in before:
        was_caught = row['verdict'] == 'caught'
        verdict = new[row['id']]['verdict']
        if verdict == 'gone':
            gone.append(f'{describe(row)}: {new[row["id"]]["note"]}')
        elif was_caught and verdict != 'caught':
            lost.append(f'{describe(row)}: {verdict}')
        elif not was_caught and verdict == 'caught':
            won.append(describe(row))
    lines = {
        'caught before, not caught now': lost,
        'gone': gone,
        'newly caught': won,
    }
    return lines, bool(lost)


def describe(row: dict) -> str:
    change = f'`{row["line"]}` -> `{row["becomes"]}`'
    return f'{row["id"]} {row["file"]} {row["function"]}: {change}'


def table(contents: list[dict]) -> str:
    """Return the counts by room as a table of Markdown."""
    columns = ('caught', 'survived', 'equivalent', 'not covered')
    lines = ['| room | mutations | ' + ' | '.join(columns) + ' |']
    lines.append('|---|' + '---:|' * (len(columns) + 1))
    total: collections.Counter[str] = collections.Counter()
    for content in contents:
        counts: collections.Counter[str] = collections.Counter()
        for row in content['mutations']:
            verdict = row.get('verdict', 'not run')
            if verdict == 'survived' and row.get('note', '').startswith('equivalent'):
                verdict = 'equivalent'
            counts[verdict] += 1
        counts['mutations'] = len(content['mutations'])
        total += counts
        lines.append(_line(content['room'], counts, columns))
    lines.append(_line('all', total, columns))
    return '\n'.join(lines)


def _line(name: str, counts: collections.Counter[str], columns: tuple[str, ...]) -> str:
    cells = [name, str(counts['mutations'])]
    cells += [str(counts[column]) for column in columns]
    return '| ' + ' | '.join(cells) + ' |'


def survivors(contents: list[dict]) -> str:
    """Return a list in Markdown of what no test caught, without the equivalent ones."""
    lines = []
    for content in contents:
        for row in content['mutations']:
            is_equivalent = row.get('note', '').startswith('equivalent')
            if row.get('verdict') in ('survived', 'not covered') and not is_equivalent:
                note = f'; {row["note"]}' if row.get('note') else ''
                where = f'{row["id"]}, `{row["file"]}`, `{row["function"]}`'
                change = f'`{row["line"]}` becomes `{row["becomes"]}`'
                lines.append(f'- {where}: {change} ({row["verdict"]}{note})')
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Do what the flags say; return 1 if a mutation survives that was caught before."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--draw', type=int, metavar='SEED')
    what.add_argument('--run', action='store_true')
    what.add_argument('--compare', action='store_true')
    what.add_argument('--table', action='store_true')
    add('--rooms', nargs='+', choices=list(ROOMS), default=list(ROOMS), metavar='ROOM')
    add('--count', type=int, default=MUTATIONS_OF_ROOM, help='drawn for each room')
    add('--seconds', type=float, help='CPU seconds of the tests of a mutation, at most')
    add('--jobs', type=int, default=1, help='mutations at the same time')
    add('--work', type=Path, help='recordings and outputs (default: by the tree)')
    add('--checkout', type=Path, default=Path(__file__).resolve().parents[2])
    args = parser.parse_args(argv)
    stored = args.checkout / STORED
    if args.draw is not None:
        draw_rooms(args.checkout, args.rooms, args.count, args.draw)
        return 0
    if args.table:
        contents = [read_room(stored, room) for room in args.rooms]
        print(table(contents), survivors(contents), sep='\n\n')
        return 0
    by_tree = args.checkout / 'work_dirs/mutations' / name_of_tree(args.checkout)
    work = args.work or by_tree
    work.mkdir(parents=True, exist_ok=True)
    print(f'recordings and outputs: {work}', flush=True)
    results = work / 'results' if args.compare else stored
    os.nice(10)
    # As an interrupt by the keyboard: the copies of the tree are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    session = Session(args.checkout, work, args.jobs)
    try:
        run_rooms(session, args.rooms, stored, results, args.seconds)
    finally:
        session.close()
    if not args.compare:
        return 0
    is_worse = False
    for room in args.rooms:
        before = read_room(stored, room)['mutations']
        lines, room_is_worse = compare(before, read_room(results, room)['mutations'])
        is_worse = is_worse or room_is_worse
        for title, names in lines.items():
            print(f'{room}: {len(names)} {title}')
            for name in names:
                print(f'  {name}')
    return 1 if is_worse else 0


if __name__ == '__main__':
    sys.exit(main())
