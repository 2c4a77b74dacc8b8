"""Two machines made of network namespaces train as one process does, after a kill too.

Each namespace has a network of its own, so that nothing but the cable between them (a
veth pair) joins the processes: addresses, ports and interfaces have to be right as on
two machines. Their file system is one, as on a cluster.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.distributed.elastic.agent.server.api import RunResult, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import SignalException

from lm4ve.commands import launch
from lm4ve.commands.launch import (
    Agent,
    exit_code_of,
    find_ended,
    rendezvous,
    report_errors,
    with_resume,
)
from lm4ve.runner.exit_codes import STOPPED, TRY_AGAIN, USERS_MISTAKE
from tests.helpers.processes import environment, free_port
from tests.helpers.runner.recording import config, recorded
from tests.helpers.tasks import ROOT
from tests.helpers.tools import ERRORS_ONLY, run_tool_here

#: Of the two machines.
ADDRESSES = ('10.77.3.1', '10.77.3.2')
#: The name of each end of the cable.
CABLE = 'lm4ve0'


def ip(*words: str) -> None:
    subprocess.run(['ip', *words], capture_output=True, text=True, check=True)


@contextlib.contextmanager
def namespaces() -> Iterator[list[str]]:
    """Make two namespaces that a cable joins; skip where that is not allowed."""
    if shutil.which('ip') is None:
        pytest.skip('the command ip is missing: apt-get install iproute2')
    names = [f'lm4ve-{os.getpid()}-{i}' for i in range(2)]
    with contextlib.ExitStack() as stack:
        try:
            for name in names:
                ip('netns', 'add', name)
                stack.callback(ip, 'netns', 'del', name)
            first = ('name', CABLE, 'netns', names[0])
            second = ('name', CABLE, 'netns', names[1])
            ip('link', 'add', *first, 'type', 'veth', 'peer', *second)
            for name, address in zip(names, ADDRESSES, strict=True):
                ip('-n', name, 'address', 'add', f'{address}/24', 'dev', CABLE)
                for device in (CABLE, 'lo'):
                    ip('-n', name, 'link', 'set', device, 'up')
        except subprocess.CalledProcessError as e:
            pytest.skip(
                f'no network namespaces can be made (root, CAP_NET_ADMIN): {e.stderr}'
            )
        yield names


def train_on_two_hosts(path: Path, **more: str) -> None:
    """Run the script once in each namespace, as a user types it on two machines."""
    env = {**environment(real=True), 'NNODES': '2', 'MASTER_ADDR': ADDRESSES[0], **more}
    env['GLOO_SOCKET_IFNAME'] = CABLE
    command = ['bash', str(ROOT / 'tools/dist_train.sh'), str(path), '1']
    jobs = []
    errors = []
    with namespaces() as names:
        for rank, name in enumerate(names):
            options = dict(ERRORS_ONLY, env={**env, 'NODE_RANK': str(rank)})
            words = ['ip', 'netns', 'exec', name, *command]
            jobs.append(subprocess.Popen(words, **options))
        try:
            for job in jobs:
                _, stderr = job.communicate(timeout=500)
                errors.append(stderr)
        finally:
            for job in jobs:
                job.kill()
    assert [job.returncode for job in jobs] == [0, 0], '\n'.join(errors)[-4000:]


@pytest.mark.slow
def test_two_hosts_equal_one_process_after_a_kill(tmp_path):
    pytest.importorskip('mmpretrain')
    mark = tmp_path / 'killed'
    two = config(tmp_path / 'two', batch=16, mark=str(mark))
    train_on_two_hosts(two, MAX_RESTARTS='1')
    assert mark.exists()

    run_tool_here('train.py', config(tmp_path / 'one', batch=32))
    single = recorded(tmp_path / 'one')
    first = recorded(two.parent, 0)
    second = recorded(two.parent, 1)
    assert first['trained'] == second['trained']
    assert first['frozen'] == single['frozen']
    numbers = []
    for line in (two.parent / 'steps.txt').read_text().splitlines():
        number, loss = line.split()
        numbers.append(int(number))
        expected = single['losses'][int(number) - 1]
        assert float(loss) == pytest.approx(expected, abs=1e-4)
    # Killed after the fifth step, resumed from the checkpoint of the third.
    assert numbers == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]


def test_restarts_use_c10d_rendezvous():
    port = free_port()
    here = rendezvous(dict(MAX_RESTARTS='3', PORT=str(port)))
    assert '--max_restarts=3' in here
    assert '--rdzv_backend=c10d' in here
    assert '--local_addr=127.0.0.1' in here
    assert f'--rdzv_endpoint=127.0.0.1:{port}' in here
    assert 'is_host=True' in ''.join(here)
    endpoint = f'127.0.0.1:{port}'
    there = rendezvous(dict(NNODES='4', RDZV_ENDPOINT=endpoint, RDZV_ID='job7'))
    assert '--nnodes=4' in there
    assert '--max_restarts=0' in there
    assert '--rdzv_id=job7' in there
    assert 'is_host' not in ''.join(there)


def test_restarted_training_resumes():
    assert with_resume('train', ['c.py'], restarts=True) == ['c.py', '--resume', 'auto']
    named = ['c.py', '--resume', 'x.pth']
    assert with_resume('train', named, restarts=True) == named
    assert with_resume('train', ['c.py'], restarts=False) == ['c.py']
    assert with_resume('test', ['c.py', 'x.pth'], restarts=True) == ['c.py', 'x.pth']


@pytest.mark.parametrize(
    'end, code, left',
    [
        ('exit 1', TRY_AGAIN, 3),
        ('kill -9 $$', TRY_AGAIN, 3),
        ('exit 2', USERS_MISTAKE, 0),
        ('exit 143', STOPPED, 0),
        # As before processes have met.
        ('kill -USR1 $$', STOPPED, 0),
    ],
)
def test_neither_user_error_nor_stop_is_restarted(
    tmp_path, monkeypatch, end, code, left
):
    # Of the two, the second ends in 143 because torchrun then sends it SIGTERM.
    first = subprocess.Popen(['sh', '-c', end])
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    script = "trap 'kill $!; exit 143' TERM; sleep 60 & echo; wait"
    survivor = subprocess.Popen(['sh', '-c', script], stdout=subprocess.PIPE)
    survivor.stdout.readline()
    processes = (first, survivor)

    def monitor(agent, group):
        survivor.terminate()
        failures = {}
        for rank, process in enumerate(processes):
            failures[rank] = SimpleNamespace(exitcode=process.wait())
        return RunResult(WorkerState.FAILED, failures=failures)

    monkeypatch.setattr(LocalElasticAgent, '_monitor_workers', monitor)
    monkeypatch.setenv('LM4VE_ERRORS', str(tmp_path))
    workers = []
    for rank, process in enumerate(processes):
        workers.append(SimpleNamespace(id=process.pid, global_rank=rank))
    agent = Agent.__new__(Agent)
    agent._remaining_restarts = 3
    agent._monitor_workers(SimpleNamespace(workers=workers))
    assert survivor.returncode == 143
    assert agent._remaining_restarts == left
    assert Agent.exit_code == code


DEATHS = [
    (signal.SIGKILL, 'SIGKILL (out of memory?)'),
    (signal.SIGSEGV, 'SIGSEGV'),
]


@pytest.mark.parametrize('number, words', DEATHS)
def test_killed_process_is_named_and_can_still_be_waited_for(
    tmp_path, monkeypatch, capsys, number, words
):
    alive = subprocess.Popen(['sleep', '60'])
    dead = subprocess.Popen(['sh', '-c', f'kill -s {int(number)} $$'])
    failed = subprocess.Popen(['false'])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    os.waitid(os.P_PID, failed.pid, os.WEXITED | os.WNOWAIT)
    workers = []
    for rank, process in enumerate((alive, dead, failed)):
        workers.append(SimpleNamespace(id=process.pid, global_rank=rank))
    result = RunResult(WorkerState.FAILED, failures={1: None})
    monkeypatch.setattr(LocalElasticAgent, '_monitor_workers', lambda *args: result)
    monkeypatch.setenv('LM4VE_ERRORS', str(tmp_path))
    agent = Agent.__new__(Agent)
    try:
        assert find_ended(workers) == {1: -number, 2: 1}
        agent._monitor_workers(SimpleNamespace(workers=workers))
    finally:
        alive.kill()
        alive.wait()
    line = capsys.readouterr().err.strip()
    host = socket.gethostname()
    assert line == f'error: rank 1 ({host}, process {dead.pid}) was killed by {words}'
    assert dead.wait() == -number
    assert failed.wait() == 1


@pytest.mark.parametrize(
    'codes, code',
    [
        ([1, 2, -9], USERS_MISTAKE),
        # nccl aborts a process that waits for one with an error that the user must mend.
        ([2, -6], USERS_MISTAKE),
        ([143, 143], STOPPED),
        ([143, 0], STOPPED),
        ([-signal.SIGTERM, 143], STOPPED),
        # The others got SIGTERM of torchrun.
        ([1, 143, 143], TRY_AGAIN),
        ([-9, 143], TRY_AGAIN),
        ([137], TRY_AGAIN),
    ],
)
def test_exit_code_is_of_the_table(codes, code):
    assert exit_code_of(codes) == code


#: What processes that failed report: of themselves, and where another one has ended.
OWN = 'train: OutOfMemoryError: CUDA out of memory (traceback: a.log)'
USER = "data_root='a' does not exist."
LOST = 'train: RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection (traceback: b)'
REPORTS = [
    ([OWN], signal.SIGABRT, [OWN]),
    ([USER, LOST], signal.SIGABRT, [USER]),
    ([LOST], signal.SIGKILL, []),
    ([LOST, OWN], None, [OWN]),
    ([LOST], None, [LOST]),
]


@pytest.mark.parametrize('messages, number, expected', REPORTS)
def test_error_of_the_process_that_failed_is_printed(
    tmp_path, capsys, messages, number, expected
):
    for rank, message in enumerate(messages):
        (tmp_path / f'{rank}.txt').write_text(message)
    (tmp_path / 'stop').write_text('Stopped.')
    has_printed = report_errors(tmp_path, is_explained=number is not None)
    assert has_printed == bool(expected)
    assert not list(tmp_path.glob('*.txt'))
    lines = capsys.readouterr().err.split('\n')
    assert [line for line in lines if line] == [f'error: {text}' for text in expected]


#: Starts the launcher, whose workers are of the package in the folder of its argument.
START = """
import os, sys
from lm4ve.commands import launch
os.environ['PYTHONPATH'] = sys.argv.pop(1)
launch.run_tool(launch.main)
"""
#: A worker that needs two seconds to save.
WORKER = """
import os, pathlib, signal, sys, time

def save(number, frame):
    time.sleep(2)
    path = pathlib.Path(os.environ['SAVED'], os.environ['RANK'])
    path.write_text(str(number))
    sys.exit(143)

for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, save)
pathlib.Path(os.environ['SAVED'], f'begun{os.environ["RANK"]}').touch()
time.sleep(120)
"""


@pytest.mark.parametrize(
    'number, seconds, saved',
    [
        (signal.SIGTERM, '60', True),
        (signal.SIGUSR1, '60', True),
        (signal.SIGUSR2, '0', False),
    ],
)
def test_signal_is_passed_on_to_all_processes(tmp_path, number, seconds, saved):
    package = tmp_path / 'lm4ve/commands'
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / '__init__.py').touch()
    (package / '__main__.py').write_text(WORKER)
    env = environment() | dict(SAVED=str(tmp_path), SAVE_SECONDS=seconds)
    command = [sys.executable, '-c', START, str(tmp_path), 'test', '2']
    with subprocess.Popen(command, env=env, **ERRORS_ONLY) as launcher:
        begun = [tmp_path / 'begun0', tmp_path / 'begun1']
        while not all(path.exists() for path in begun):
            assert launcher.poll() is None
            time.sleep(0.1)
        launcher.send_signal(number)
        assert launcher.wait(60) == STOPPED, launcher.stderr.read()
    for rank in range(2):
        assert (tmp_path / str(rank)).exists() == saved


@pytest.mark.slow
def test_rank_killed_before_the_group_is_up_is_named(tmp_path):
    pytest.importorskip('mmpretrain')
    path = config(tmp_path / 'two', batch=16)
    module = 'tests.helpers.runner.early_death'
    path.write_text(
        f"{path.read_text()}\ncustom_imports['imports'].append('{module}')\n"
    )
    env = environment() | dict(LM4VE_TEST_DIE_BY=str(int(signal.SIGKILL)))
    command = ['bash', str(ROOT / 'tools/dist_train.sh'), str(path), '2']
    done = subprocess.run(command, env=env, timeout=300, check=False, **ERRORS_ONLY)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f'error: rank 1 ({socket.gethostname()}, process ')
    assert line.endswith('was killed by SIGKILL (out of memory?)')
    assert done.returncode == TRY_AGAIN


NEVER_MET = [
    dict(NODE_RANK='0'),
    dict(NODE_RANK='1'),
    dict(NODE_RANK='0', MAX_RESTARTS='2'),
    dict(NODE_RANK='1', MAX_RESTARTS='2'),
]


@pytest.mark.slow
@pytest.mark.parametrize('variables', NEVER_MET)
def test_machines_that_never_meet_say_so_and_may_try_again(tmp_path, variables):
    env = environment() | dict(NNODES='2', MEET_SECONDS='5', PORT=str(free_port()))
    command = ['bash', str(ROOT / 'tools/dist_train.sh'), str(tmp_path / 'c.py'), '1']
    done = subprocess.run(
        command, env=env | variables, timeout=200, check=False, **ERRORS_ONLY
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert line.startswith(
        f'error: 2 machines did not meet at 127.0.0.1:{env["PORT"]} '
    )
    assert done.returncode == TRY_AGAIN


def test_older_torchrun_is_said_to_wait_half_a_minute(monkeypatch, capsys):
    older = SimpleNamespace(format_help=lambda: '--signals-to-handle')
    monkeypatch.setattr(launch.torchrun, 'get_args_parser', lambda: older)
    before = {each: signal.getsignal(each) for each in (signal.SIGUSR1, signal.SIGUSR2)}
    try:
        assert launch.signal_flags({}) == []
        with pytest.raises(SignalException):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert '30 s' in capsys.readouterr().err
