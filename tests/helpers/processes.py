"""The environment of processes that tests start, and ports for them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.helpers import quick_python
from tests.helpers.tasks import ROOT


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def environment(real: bool = False) -> dict:
    """Return that of a script that calls `python`, a quick one or really this one."""
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    return {
        **os.environ,
        'PATH': path if real else quick_python.path(),
        'PYTHONPATH': os.pathsep.join((str(ROOT), str(ROOT / 'projects'))),
        'OMP_NUM_THREADS': '1',
        'PORT': str(free_port()),
    }


def outputs_of_two(script: str, folder: Path, *words: str) -> list[str]:
    """Run a helper in two processes; return what each printed: see :func:`outputs_of`."""
    return outputs_of(2, script, folder, *words)


def outputs_of(count: int, script: str, folder: Path, *words: str) -> list[str]:
    """Run a helper in several processes; return what each printed.

    Args:
        count (int): How many processes.
        script (str): In ``tests/helpers/runner``.
        folder (Path): Its second argument, after the rank.
        *words (str): Further arguments.
    """
    path = ROOT / 'tests/helpers/runner' / script
    jobs = []
    for rank in range(count):
        job = subprocess.Popen(
            ['python', path, str(rank), folder, *words],
            env=environment() | dict(LOCAL_RANK=str(rank)),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        jobs.append(job)
    outputs = []
    for job in jobs:
        stdout, stderr = job.communicate(timeout=300)
        assert job.returncode == 0, stderr[-2000:]
        outputs.append(stdout)
    return outputs
