"""Start a command on several processes of one or more machines, by torchrun.

    python -m lm4ve.commands.launch train GPUS CONFIG [flags]

``tools/dist_train.sh`` and ``tools/dist_test.sh`` call it. Machines and port come from
the environment: NNODES, NODE_RANK, MASTER_ADDR, PORT; or, for torchrun's c10d
rendezvous, RDZV_ENDPOINT in place of the last two, where NODE_RANK may be left out.
MAX_RESTARTS is how often the processes of a training are started again when one of them
dies. An error is printed once, not by every process.
"""

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.distributed import run as torchrun
from torch.distributed.elastic.agent.server import local_elastic_agent
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import api

from lm4ve.runner.command_line import ERRORS, TRACEBACK, report, run_tool

#: Seconds that machines wait for the last one, at the start and after a restart.
_WAIT = 900
#: What a process exits with after an error that the user must mend.
_USER_ERROR = 2
#: torchrun's own default.
_PORT = 29500


def rendezvous(env: Mapping[str, str]) -> list[str]:
    """Return the flags of torchrun by which the machines find each other.

    The arguments come from environment variables, which the module's docstring lists.
    Without restarts and without RDZV_ENDPOINT the machine of NODE_RANK 0 waits at
    MASTER_ADDR for the others, whose ranks are fixed. Otherwise they meet in torchrun's
    c10d rendezvous, again after each restart, which assigns the ranks.
    """
    nodes = env.get('NNODES', '1')
    restarts = env.get('MAX_RESTARTS', '0')
    rank = env.get('NODE_RANK')
    host = env.get('MASTER_ADDR', '127.0.0.1')
    port = env.get('PORT') or _PORT
    ranks_are_fixed = 'RDZV_ENDPOINT' not in env and restarts == '0'
    if ranks_are_fixed:
        flags: dict[str, Any] = dict(
            nnodes=nodes,
            node_rank=rank or 0,
            master_addr=host,
            master_port=port,
        )
    else:
        endpoint = env.get('RDZV_ENDPOINT', f'{host}:{port}')
        settings = f'join_timeout={_WAIT},read_timeout={_WAIT}'
        # The host of the rendezvous is the machine of rank 0, which is the default. Of
        # several machines that meet at an endpoint without ranks, torchrun finds out
        # which one the endpoint is on.
        host_is_known = rank is not None or nodes == '1' or 'RDZV_ENDPOINT' not in env
        if host_is_known:
            is_host = rank in (None, '0')
            settings += f',is_host={is_host}'
        address = env.get('LOCAL_ADDR')
        if not address:
            # By default torchrun gives this machine's name, which others may not resolve.
            address = _address_towards(endpoint.rpartition(':')[0])
        flags = dict(
            nnodes=nodes,
            max_restarts=restarts,
            rdzv_backend='c10d',
            rdzv_endpoint=endpoint,
            rdzv_id=env.get('RDZV_ID', 'lm4ve'),
            rdzv_conf=settings,
            local_addr=address,
        )
    return [f'--{name}={value}' for name, value in flags.items()]


def _address_towards(host: str) -> str:
    """Return this machine's IP address on the network that leads to another machine.

    Connecting a datagram socket chooses the network and sends nothing.
    """
    family, *_, address = socket.getaddrinfo(host, 1, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.connect(address)
        return str(s.getsockname()[0])


class Agent(local_elastic_agent.LocalElasticAgent):
    """torchrun's agent, which does not start again after an error that the user must mend."""

    def _monitor_workers(self, group: Any) -> Any:
        """Look after the processes as torchrun does; allow no restart after a user's error."""
        result = super()._monitor_workers(group)
        if result.is_failed():
            codes = [failure.exitcode for failure in result.failures.values()]
            if _USER_ERROR in codes:
                self._remaining_restarts = 0
        return result


def with_resume(command: str, words: Sequence[str], restarts: bool) -> list[str]:
    """Add ``--resume auto`` to a training that torchrun may start again, unless it resumes.

    Args:
        command (str): The command, for example 'train'; others are not changed.
        words (Sequence[str]): Its command line.
        restarts (bool): Whether torchrun starts processes again when one dies.
    """
    is_given = any(word.partition('=')[0] == '--resume' for word in words)
    if command != 'train' or not restarts or is_given:
        return list(words)
    return [*words, '--resume', 'auto']


def main() -> None:
    """Run a command by torchrun as the module's docstring describes, and exit as it ends."""
    command, processes, *words = sys.argv[1:]
    env = os.environ
    words = with_resume(command, words, restarts=env.get('MAX_RESTARTS', '0') != '0')
    args = torchrun.parse_args(
        [
            *rendezvous(env),
            f'--nproc_per_node={processes}',
            '--module',
            'lm4ve.commands',
            command,
            *words,
            '--launcher',
            'pytorch',
        ]
    )
    # torchrun would keep one store for all starts, in which the addresses of processes
    # that died remain.
    env.setdefault('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')
    launcher: Any = api
    launcher.LocalElasticAgent = Agent
    # torchrun's own default; one thread a process is right for GPUs.
    env.setdefault('OMP_NUM_THREADS', '1')
    env.setdefault('MKL_NUM_THREADS', env['OMP_NUM_THREADS'])
    # Its tables of exit codes repeat the processes' own messages.
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        env[ERRORS] = folder
        try:
            torchrun.run(args)
            return
        except ChildFailedError as e:
            code = max(f.exitcode for f in e.failures.values()) or 1
        except SignalException as e:
            sys.exit(128 + int(e.sigval))
        finally:
            del env[ERRORS]  # errors of this process go to the screen
        _report_errors(Path(folder))
    sys.exit(code)


def _report_errors(folder: Path) -> None:
    """Print the errors that processes wrote into a folder, each once.

    Several processes report one error with different tracebacks: of these, the last is
    printed.
    """
    messages = {}
    for path in sorted(folder.glob('*.txt')):
        message = path.read_text(encoding='utf-8')
        sentence, _, _ = message.partition(TRACEBACK)
        messages[sentence] = message
    for message in messages.values():
        report(message)


if __name__ == '__main__':
    run_tool(main)
