"""Start a command on several processes of one or more machines, by torchrun.

    python -m lm4ve.commands.launch train GPUS CONFIG [flags]

``tools/dist_train.sh`` and ``tools/dist_test.sh`` call it. Machines and port come from
the environment: NNODES, NODE_RANK, MASTER_ADDR, PORT; or, for torchrun's c10d rendezvous,
RDZV_ENDPOINT in place of the last two, where NODE_RANK may be left out. MAX_RESTARTS says how
often the processes of a training are started again when one of them dies. An error of the user
is printed once, not by every process, and nothing follows it.
"""

import logging
import os
import re
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.agent.server import local_elastic_agent
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import api

from lm4ve.errors import UserError
from lm4ve.runner.command_line import ERRORS, run_tool
from lm4ve.runner.messages import busy_port

#: Seconds that machines wait for the last one, at the start and after a restart.
_WAIT = 900


def number(name: str, value: str, least: int, most: int | None = None) -> int:
    """Return a number from the command line or the environment.

    Raises:
        UserError: It is none, below the least or above the most.
    """
    whole = re.fullmatch('[0-9]{1,9}', value)
    if not whole or int(value) < least or (most is not None and int(value) > most):
        limits = f'from {least}' if most is None else f'from {least} to {most}'
        raise UserError(f"{name}='{value}' must be a whole number {limits}. Fix: correct it.")
    return int(value)


def check_port(address: str, port: int) -> None:
    """Refuse a port of this machine that another process listens on.

    Raises:
        UserError: The port is in use.
    """
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(('', port))
        except OSError as e:
            raise UserError(busy_port(port)) from e


def address_towards(host: str, port: int) -> str:
    """Return the address of this machine from which another one is reached; nothing is sent.

    Raises:
        UserError: There is no way to the other machine, or no such name.
    """
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.connect(where)
            return str(s.getsockname()[0])
    except OSError as e:
        raise UserError(
            f"There is no way from here to '{host}' ({e.strerror or e}). Fix: correct MASTER_ADDR "
            'or RDZV_ENDPOINT.'
        ) from e


def rendezvous(env: Mapping[str, str]) -> list[str]:
    """Return the flags by which torchrun lets the machines find each other.

    Without restarts and without RDZV_ENDPOINT the machine of NODE_RANK 0 waits at MASTER_ADDR
    for the others, whose ranks are fixed. Else they meet in torchrun's c10d rendezvous, again
    after each restart, and ranks are given there.

    Raises:
        UserError: A value is wrong; the port of this machine is in use.
    """
    nodes = number('NNODES', env.get('NNODES', '1'), 1)
    rank = number('NODE_RANK', env.get('NODE_RANK', '0'), 0, nodes - 1)
    restarts = number('MAX_RESTARTS', env.get('MAX_RESTARTS', '0'), 0)
    host, port = env.get('MASTER_ADDR', '127.0.0.1'), env.get('PORT', '29500')
    if 'RDZV_ENDPOINT' in env:
        host, _, port = env['RDZV_ENDPOINT'].rpartition(':')
        if not host:
            raise UserError(
                f"RDZV_ENDPOINT='{env['RDZV_ENDPOINT']}' must be HOST:PORT, for example "
                '10.0.0.1:29500. Fix: correct it.'
            )
    name = 'RDZV_ENDPOINT' if 'RDZV_ENDPOINT' in env else 'PORT'
    at = number(name, port, 1, 65535)
    # Without a NODE_RANK torchrun finds out which machine the endpoint is on.
    known = 'NODE_RANK' in env or name == 'PORT' or nodes == 1
    if known and rank == 0:
        check_port(host, at)
    flags = [f'--nnodes={nodes}']
    if not restarts and name == 'PORT':
        return [*flags, f'--node_rank={rank}', f'--master_addr={host}', f'--master_port={at}']
    settings = [f'{key}={_WAIT}' for key in ('join_timeout', 'read_timeout')]
    if known:
        settings.append(f'is_host={rank == 0}')
    return [
        *flags,
        f'--max_restarts={restarts}',
        '--rdzv_backend=c10d',
        f'--rdzv_endpoint={host}:{at}',
        f'--rdzv_id={env.get("RDZV_ID", "lm4ve")}',
        f'--rdzv_conf={",".join(settings)}',
        # Not by this machine's name, which the others need not know.
        f'--local_addr={env.get("LOCAL_ADDR") or address_towards(host, at)}',
    ]


class Agent(local_elastic_agent.LocalElasticAgent):
    """torchrun's agent, which does not start again what a user has to mend first."""

    def _monitor_workers(self, group):
        result = super()._monitor_workers(group)
        if result.is_failed() and any(f.exitcode == 2 for f in result.failures.values()):
            self._remaining_restarts = 0
        return result


def resuming(command: str, words: Sequence[str], restarts: bool) -> list[str]:
    """Return the words of a command; a training that may be started again resumes itself."""
    given = any(w == '--resume' or w.startswith('--resume=') for w in words)
    return [
        *words,
        *(['--resume', 'auto'] if restarts and command == 'train' and not given else []),
    ]


def main() -> None:
    command, processes, *words = sys.argv[1:]
    env = os.environ
    count = number('GPUS', processes, 1)
    flags = rendezvous(env)
    words = resuming(command, words, restarts=env.get('MAX_RESTARTS', '0') != '0')
    args = torchrun.parse_args([
        *flags,
        f'--nproc_per_node={count}',
        '--module',
        'lm4ve.commands',
        command,
        *words,
        '--launcher',
        'pytorch',
    ])  # fmt: skip
    # torchrun would keep one store for all starts, with the addresses of the dead in it.
    env.setdefault('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')
    api.LocalElasticAgent = Agent
    # As torchrun does without a word; one thread a process is right for GPUs.
    env.setdefault('OMP_NUM_THREADS', '1')
    env.setdefault('MKL_NUM_THREADS', env['OMP_NUM_THREADS'])
    # Its tables of exit codes say less than the processes' own messages.
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        env[ERRORS] = folder
        try:
            torchrun.run(args)
        except ChildFailedError as e:
            messages = {p.read_text(encoding='utf-8') for p in sorted(Path(folder).glob('*.txt'))}
            del env[ERRORS]  # of this process, the error goes to the screen
            if messages:
                raise UserError('\n'.join(sorted(messages))) from e
            sys.exit(max(f.exitcode for f in e.failures.values()) or 1)
        except SignalException as e:
            sys.exit(128 + int(e.sigval))


if __name__ == '__main__':
    run_tool(main)
