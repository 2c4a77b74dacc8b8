"""Run tests in a fork of a warm process, in a copy of the tree, within limits.

Importing the libraries takes ten seconds, so one process has imported them, and not
lm4ve; each run of tests is a fork of it that imports lm4ve from the copy. A mutant may
loop, fill the memory or leave processes behind: a run has limits, its folders are
removed, and what is left of its processes is killed.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from mutating.plugin import Plugin, cpu_seconds

#: What imports by itself; mmpretrain's models need a repair of lm4ve first.
LIBRARIES = (
    'matplotlib.pyplot',
    'mmaction.datasets',
    'mmengine.runner',
    'mmpretrain.datasets',
    'pandas',
    'scipy.stats',
    'sklearn.datasets',
    'sklearn.metrics',
    'timm',
    'torch.distributed.run',
    'torch.utils.tensorboard',
    'torchvision',
    'transformers.models.bert.modeling_bert',
)
#: Bytes of memory that the processes of a run may use. Address space says nothing: every
#: file of weights that is mapped adds to it.
MEMORY = 8 * 2**30
#: Bytes of one file that they write.
FILE = 4 * 2**30
#: Seconds that collecting the tests may take, with the import of lm4ve.
COLLECTION = 300
#: A test may take this many times as long as recorded, and so many seconds more, of CPU
#: time or of waiting while none of its processes wants to compute: it is killed because it
#: hangs, never because the machine is busy.
TIMES = 10
MORE = 90
#: Of ``prctl``: a process ends with its parent; what its children leave becomes its own.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def import_libraries() -> None:
    """Import what most tests need, so that forks have it."""
    os.environ['OMP_NUM_THREADS'] = '1'
    os.environ['HF_HUB_OFFLINE'] = '1'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for name in LIBRARIES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    own = [name for name in sys.modules if name.partition('.')[0] in ('lm4ve', 'tests')]
    assert not own, own
    gc.collect()
    gc.freeze()  # or each fork would copy what is collected


@dataclass
class Outcome:
    """How a run of tests ended.

    Attributes:
        tests (list[dict]): The lines of the log of the tests that ended.
        fixtures (list[dict]): Those of fixtures that several tests share.
        failed (str): The test that failed, or that ran when the process died; the file
            that could not be collected; '' if all passed.
        collected (list[str]): The ids of all tests, if they were not given.
        how (str): ``passed``, ``failed``, ``uncollected``, ``crash``, ``memory`` or
            ``timeout``.
    """

    tests: list[dict] = field(default_factory=list)
    fixtures: list[dict] = field(default_factory=list)
    collected: list[str] = field(default_factory=list)
    failed: str = ''
    how: str = 'passed'


class Tree:
    """A copy of the files of a checkout, below a temporary folder with a short name.

    Names of sockets, which tests make below it, may not be long.
    """

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.folder = Path(tempfile.mkdtemp(prefix='mut', dir='/tmp'))
        self.root = self.folder / 'tree'
        self.home = self.folder / 'home'
        self.home.mkdir()
        self._states: dict[str, tuple[int, int]] = {}
        for name in files_of(checkout):
            self._copy(name)

    def _copy(self, name: str) -> None:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(self.checkout / name, target, follow_symlinks=False)
        self._states[name] = _state(target)

    def replace(self, file: str, content: bytes) -> None:
        """Give a source file of the package another content."""
        path = self.root / 'projects/lm4ve' / file
        path.write_bytes(content)
        _forget_compiled(path)

    def restore(self) -> None:
        """Copy again what has changed since."""
        for name, state in self._states.items():
            path = self.root / name
            if not os.path.lexists(path) or _state(path) != state:
                self._copy(name)
                _forget_compiled(path)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _state(path: Path) -> tuple[int, int]:
    stat = path.lstat()
    return stat.st_size, stat.st_mtime_ns


def _forget_compiled(path: Path) -> None:
    """Remove compiled files, whose time might be that of another source of this second."""
    for compiled in (path.parent / '__pycache__').glob(f'{path.stem}.*.pyc'):
        compiled.unlink()


def files_of(checkout: Path) -> list[str]:
    """Return the tracked and new files of a checkout that git does not ignore."""
    command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    output = subprocess.run(
        command, cwd=checkout, check=True, capture_output=True
    ).stdout
    names = output.decode().split('\0')
    return sorted(
        name for name in set(names) if name and os.path.lexists(checkout / name)
    )


def run_tests(
    tree: Tree,
    files: list[str],
    tests: list[str] | None,
    seconds: dict[str, float],
    options: tuple[str, ...],
    output: Path,
) -> Outcome:
    """Run tests in a fork and wait for its end.

    Args:
        tree (Tree): Where.
        files (list[str]): What pytest collects, below the tree.
        tests (list[str], optional): Ids of the tests to run, in this order; None: all.
        seconds (dict[str, float]): How long each test was recorded to take.
        options (tuple[str, ...]): Of pytest.
        output (Path): Gets what the tests print; the log lies beside it.
    """
    log = output.with_suffix('.jsonl')
    log.unlink(missing_ok=True)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pid = os.fork()
    if pid == 0:
        _become_tests(tree, files, tests, options, output, log)
    status, reason = _wait(pid, log, seconds)
    _kill_the_rest()
    shutil.rmtree(tree.folder / 't', ignore_errors=True)
    return _outcome(read_log(log), status, reason)


def _become_tests(
    tree: Tree,
    files: list[str],
    tests: list[str] | None,
    options: tuple[str, ...],
    output: Path,
    log: Path,
) -> None:
    """Be a process that runs tests; never returns."""
    code = 70
    try:
        end_with_parent()
        os.setsid()
        with output.open('wb') as stream:
            for number in (1, 2):
                os.dup2(stream.fileno(), number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        temporary = tree.folder / 't'
        temporary.mkdir(exist_ok=True)
        tempfile.tempdir = None
        projects = str(tree.root / 'projects')
        os.environ.update(
            HOME=str(tree.home),
            PYTHONPATH=projects,
            PYTEST_DISABLE_PLUGIN_AUTOLOAD='1',  # dash's imports a browser's driver
            TMPDIR=str(temporary),
        )
        os.chdir(tree.root)
        others = [path for path in sys.path if path and not _is_of(path, tree.checkout)]
        sys.path[:] = [projects, *others]
        sys.argv = ['pytest']
        plugin = Plugin(log, tests)
        arguments = [f'--rootdir={tree.root}', f'--basetemp={temporary}/b', *options]
        arguments += ['-q', '-p', 'no:cacheprovider', *files]
        code = int(pytest.main(arguments, plugins=[plugin]))
        sys.stdout.flush()
    finally:
        os._exit(code)


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _is_of(path: str, folder: Path) -> bool:
    """Return whether a path lies in a checkout, but not in an environment below it."""
    resolved = Path(path).resolve()
    return resolved.is_relative_to(folder) and 'site-packages' not in resolved.parts


def _wait(pid: int, log: Path, seconds: dict[str, float]) -> tuple[int, str]:
    """Wait for a process, or kill it if a test hangs or uses too much memory.

    Returns:
        tuple: Its status, and why it was killed: '', ``timeout`` or ``memory``.
    """
    watch = _Watch(pid)
    size = -1
    limit: float = COLLECTION
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status, ''
        if log.exists() and log.stat().st_size != size:
            size = log.stat().st_size
            limit = _limit(read_log(log), seconds)
            watch.start_anew()
        watch.look()
        reason = ''
        if max(watch.computed, watch.waited) > limit:
            reason = 'timeout'
        if watch.memory > MEMORY:
            reason = 'memory'
        if reason:
            os.killpg(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1], reason
        time.sleep(0.05)


class _Watch:
    """What a process and all that it started have used since the present test began.

    Args:
        pid (int): The process.

    Attributes:
        computed (float): CPU time in seconds.
        waited (float): Seconds in which none of them wanted to compute, so that another
            load of the machine is no matter.
        memory (int): Bytes, at the last look.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen = time.monotonic()
        self._begin = 0.0
        self.computed = 0.0
        self.waited = 0.0
        self.memory = 0

    def start_anew(self) -> None:
        """Forget the test before."""
        with contextlib.suppress(psutil.Error):
            self._begin = cpu_seconds(self._pid)
        self.computed = 0.0
        self.waited = 0.0

    def look(self) -> None:
        """Look at the processes, once in a second."""
        now = time.monotonic()
        passed = now - self._seen
        if passed < 1:
            return
        self._seen = now
        with contextlib.suppress(psutil.Error):
            self.computed = cpu_seconds(self._pid) - self._begin
            process = psutil.Process(self._pid)
            processes = [process, *process.children(recursive=True)]
            self.memory = sum(one.memory_info().rss for one in processes)
            states = {one.status() for one in processes}
            if not states & {psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP}:
                self.waited += passed


def read_log(path: Path) -> list[dict]:
    """Return the lines of a log of tests; one that was cut off by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding='utf-8').split('\n')
    return [json.loads(line) for line in lines[:-1]]


def _limit(lines: list[dict], seconds: dict[str, float]) -> float:
    """Return how long the log may stay as it is."""
    if lines and lines[-1]['event'] != 'uncollected':
        running = lines[-1].get('test', '')
        return TIMES * seconds.get(running, COLLECTION / TIMES) + MORE
    return COLLECTION


def _kill_the_rest() -> None:
    """Kill the processes that a run of tests left; they are now this process's children."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _outcome(lines: list[dict], status: int, reason: str) -> Outcome:
    outcome = Outcome()
    running = ''
    for line in lines:
        event = line['event']
        if event == 'start':
            running = line['test']
        elif event == 'collected':
            outcome.collected = line['tests']
        elif event == 'fixture':
            outcome.fixtures.append(line)
        elif event == 'end':
            running = ''
            outcome.tests.append(line)
            if not line['passed'] and not outcome.failed:
                outcome.failed = line['test']
                outcome.how = 'failed'
        elif not outcome.failed:
            outcome.failed = line['test']
            outcome.how = 'uncollected'
    code = os.waitstatus_to_exitcode(status)
    was_cut_off = running != '' or (code != 0 and not outcome.failed)
    if was_cut_off:
        outcome.failed = running or 'collection'
        outcome.how = reason or 'crash'
    return outcome
