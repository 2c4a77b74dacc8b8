"""Two machines made of network namespaces train as one process does, after a kill too.

Each namespace has a network of its own, so that nothing but the cable between them (a veth
pair) joins the processes: addresses, ports and interfaces have to be right as on two machines.
Their file system is one, as on a cluster.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.distributed.elastic.agent.server.api import RunResult, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

from lm4ve.commands.launch import Agent, rendezvous, resuming
from lm4ve.errors import UserError
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here
from tests.runner.test_distributed import config, environment, free_port, recorded

ADDRESSES, CABLE = ('10.77.3.1', '10.77.3.2'), 'lm4ve0'


def ip(*words: str) -> None:
    done = subprocess.run(['ip', *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f'ip {" ".join(words)}: {done.stderr.strip()}')


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
            first, second = (('name', CABLE, 'netns', name) for name in names)
            ip('link', 'add', *first, 'type', 'veth', 'peer', *second)
            for name, address in zip(names, ADDRESSES, strict=True):
                ip('-n', name, 'address', 'add', f'{address}/24', 'dev', CABLE)
                for device in (CABLE, 'lo'):
                    ip('-n', name, 'link', 'set', device, 'up')
        except OSError as e:
            pytest.skip(f'no network namespaces can be made here (root, CAP_NET_ADMIN): {e}')
        yield names


def train_on_two_hosts(path: Path, **more: str) -> None:
    """Run the script once in each namespace, as a user types it on two machines."""
    env = {**environment(real=True), 'NNODES': '2', 'MASTER_ADDR': ADDRESSES[0], **more}
    env['GLOO_SOCKET_IFNAME'] = CABLE
    command = ['bash', str(ROOT / 'tools/dist_train.sh'), str(path), '1']
    with namespaces() as names:
        jobs = [
            subprocess.Popen(
                ['ip', 'netns', 'exec', name, *command],
                env={**env, 'NODE_RANK': str(rank)},
                text=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for rank, name in enumerate(names)
        ]
        try:
            said = [job.communicate(timeout=500)[1] for job in jobs]
        finally:
            for job in jobs:
                job.kill()
    assert [job.returncode for job in jobs] == [0, 0], '\n'.join(said)[-4000:]


@pytest.mark.slow
def test_two_hosts_train_as_one_process_and_go_on_after_a_kill(tmp_path):
    pytest.importorskip('mmpretrain')
    mark = tmp_path / 'killed'
    two = config(tmp_path / 'two', batch=16, mark=str(mark))
    train_on_two_hosts(two, MAX_RESTARTS='1')
    assert mark.exists()

    run_tool_here('train.py', config(tmp_path / 'one', batch=32))
    single = recorded(tmp_path / 'one')
    first, second = recorded(two.parent, 0), recorded(two.parent, 1)
    assert first['trained'] == second['trained'] and first['frozen'] == single['frozen']
    lines = (two.parent / 'steps.txt').read_text().splitlines()
    steps = [(int(n), float(loss)) for n, loss in map(str.split, lines)]
    # Killed after the fifth step, resumed from the checkpoint of the third.
    assert [n for n, _ in steps] == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]
    for number, loss in steps:
        assert loss == pytest.approx(single['losses'][number - 1], abs=1e-4)


def test_machines_without_restarts_have_the_ranks_that_they_are_given():
    env = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='1234')
    flags = rendezvous(env)
    assert flags == ['--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=1234']


def test_restarts_and_an_endpoint_use_the_c10d_rendezvous():
    port = free_port()
    here = rendezvous(dict(MAX_RESTARTS='3', PORT=str(port)))
    assert {'--max_restarts=3', '--rdzv_backend=c10d', '--local_addr=127.0.0.1'} <= {*here}
    assert f'--rdzv_endpoint=127.0.0.1:{port}' in here and 'is_host=True' in ''.join(here)
    there = rendezvous(dict(NNODES='4', RDZV_ENDPOINT=f'127.0.0.1:{port}', RDZV_ID='job7'))
    assert {'--nnodes=4', '--max_restarts=0', '--rdzv_id=job7'} <= {*there}
    assert 'is_host' not in ''.join(there)


@pytest.mark.parametrize(
    'env, message',
    [
        (dict(RDZV_ENDPOINT='10.0.0.1'), "RDZV_ENDPOINT='10.0.0.1' must be HOST:PORT"),
        (dict(RDZV_ENDPOINT='h:99999'), "RDZV_ENDPOINT='99999' must be a whole number"),
        (dict(MAX_RESTARTS='-1'), "MAX_RESTARTS='-1' must be a whole number from 0"),
        (dict(NNODES='2', NODE_RANK='2'), "NODE_RANK='2' must be a whole number from 0 to 1"),
        (
            dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='no.such.invalid', MAX_RESTARTS='1'),
            "no way from here to 'no.such.invalid'",
        ),
    ],
)
def test_a_wrong_address_is_one_message(env, message):
    with pytest.raises(UserError, match=message):
        rendezvous(env)


def test_a_training_that_is_started_again_resumes_itself():
    assert resuming('train', ['c.py'], restarts=True) == ['c.py', '--resume', 'auto']
    assert resuming('train', ['c.py', '--resume', 'x.pth'], restarts=True)[-1] == 'x.pth'
    assert resuming('train', ['c.py'], restarts=False) == ['c.py']
    assert resuming('test', ['c.py', 'x.pth'], restarts=True) == ['c.py', 'x.pth']


@pytest.mark.parametrize('code, left', [(1, 3), (-9, 3), (2, 0)])
def test_a_mistake_of_the_user_is_not_started_again(monkeypatch, code, left):
    result = RunResult(WorkerState.FAILED, failures={0: SimpleNamespace(exitcode=code)})
    monkeypatch.setattr(LocalElasticAgent, '_monitor_workers', lambda agent, group: result)
    agent = Agent.__new__(Agent)
    agent._remaining_restarts = 3
    assert agent._monitor_workers(None) is result and agent._remaining_restarts == left
