"""Memory that a process has freed is touched again without the system's help."""

import subprocess
import sys

import pytest

_PAGES = """
import resource
from lm4ve.runner.freed_memory import keep_freed_memory
for everything in {calls}:
    assert keep_freed_memory(everything)
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    memory = bytearray(b'1') * {size}
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""
MIB = 2**20


def pages_of_a_second_use(calls: list[bool], size: int) -> int:
    """Return how often the system has to help where memory is used a second time."""
    program = _PAGES.format(calls=calls, size=size)
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(
    ('calls', 'size', 'kept'),
    [
        ([], 64 * MIB, False),
        ([True], 64 * MIB, True),
        ([False], 24 * MIB, True),
        ([False], 64 * MIB, False),
        # A worker is forked from a training.
        ([True, False], 64 * MIB, False),
    ],
)
def test_a_training_keeps_all_it_frees_and_a_worker_some(calls, size, kept):
    pages = pages_of_a_second_use(calls, size)
    assert pages < 100 if kept else pages > 1000


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_only_a_training_on_the_cpu_keeps_memory(monkeypatch, device, tmp_path):
    from lm4ve.runner import command_line

    kept = []
    monkeypatch.setattr(command_line, 'get_device', lambda: device)
    monkeypatch.setattr(command_line, 'keep_freed_memory', lambda everything: kept.append(1))
    cfg = command_line.Config(dict(work_dir=str(tmp_path), runner_type='Missing'))
    with pytest.raises(command_line.UserError):
        command_line.build_runner(cfg)
    assert bool(kept) == (device == 'cpu')
