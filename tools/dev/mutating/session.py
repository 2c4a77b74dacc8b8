"""Run the mutations of a room against its tests, in processes that have the libraries."""

import concurrent.futures
import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from mutating.recording import record
from mutating.rooms import ROOMS
from mutating.running import (
    Outcome,
    Tree,
    end_with_parent,
    import_libraries,
    run_tests,
)
from mutating.selection import Recording
from mutating.sources import Mutation, Place, locate, mutate, read_sources

QUICK = 'not slow and not walk and not slurm and not cuda'
SLOW = 'slow and not walk and not slurm and not cuda'
FIELDS = ('file', 'function', 'kind', 'line', 'before', 'after', 'occurrence')


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
            seconds (float): CPU seconds of the tests of a mutation, at most.
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
