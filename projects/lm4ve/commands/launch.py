"""Start a command on several processes of one or more machines, by torchrun.

    python -m lm4ve.commands.launch train GPUS CONFIG [flags]

``tools/dist_train.sh`` and ``tools/dist_test.sh`` call it. Machines and port come from
the environment: NNODES, NODE_RANK, MASTER_ADDR, PORT; or, for torchrun's c10d
rendezvous, RDZV_ENDPOINT in place of the last two, where NODE_RANK may be left out.
MAX_RESTARTS is how often the processes of a training are started again when one of them
dies. An error is printed once, not by every process, and the first one first. A process
that a signal kills, such as SIGKILL where memory runs out, is named. SIGTERM, SIGUSR1
and SIGUSR2 are passed on to all processes, which save and end.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch.distributed import run as torchrun
from torch.distributed.elastic.agent.server import local_elastic_agent
from torch.distributed.elastic.multiprocessing.api import (
    SignalException,
    _terminate_process_handler,
)
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import api

from lm4ve.commands.killed import Killed
from lm4ve.commands.train import require_for_processes
from lm4ve.runner.command_line import ERRORS, STOP_FILE, TRACEBACK, report, run_tool
from lm4ve.runner.ending.signals import STOP_SIGNALS

#: Seconds that machines wait for the last one, at the start and after a restart.
_WAIT = 900
#: Seconds in which processes may end by themselves after one of them was killed.
_PATIENCE = 5
#: What a process exits with after an error that the user must mend.
_USER_ERROR = 2
#: What a process exits with after such an error, or a signal that asks it to stop: a new
#: start is of no use.
_FINAL = (_USER_ERROR, *(128 + number for number in STOP_SIGNALS))
#: Signals at which all processes save and end. Ctrl-C reaches them from the terminal.
_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
#: What a process exits with after SIGTERM, which torchrun sends to all once one has failed.
_TERMINATED = 128 + signal.SIGTERM
#: What the errors of gloo, of the store and of nccl say where another process has ended.
_LOST_CONNECTION = (
    'gloo/transport/tcp/pair.cc',
    'DistNetworkError: Failed to recv',
    'DistNetworkError: Connection reset by peer',
    'DistNetworkError: Broken pipe',
    'remote process exiting prematurely',
)
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
    """torchrun's agent, which names killed processes and lets all save before they end.

    It does not start again after an error that the user must mend, nor after a signal
    that asked for the end.
    """

    #: The processes that were killed last. torchrun builds the agent, and gives it to
    #: nobody.
    killed: ClassVar[list[Killed]] = []
    #: Whether a signal was passed on, so that processes end because of it.
    is_stopping = False

    def _start_workers(self, group: Any) -> Any:
        """Start the processes, and pass signals on to them from then on."""
        pids = super()._start_workers(group)
        for number in _PASSED_ON:
            signal.signal(number, self._pass_on)
        return pids

    def _pass_on(self, number: int, frame: object) -> None:
        """Handle a signal: send it to all processes, which save a checkpoint and end.

        torchrun itself would kill those that need more than half a minute for it. It
        handles a second signal.
        """
        self.is_stopping = True
        for again in _PASSED_ON:
            signal.signal(again, _terminate_process_handler)
        for worker in self._worker_group.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.id, number)

    def _monitor_workers(self, group: Any) -> Any:
        """Look after the processes as torchrun does, and print which were killed."""
        # Looked for first: torchrun kills the others when one has failed.
        killed = find_killed(group.workers)
        codes = find_exit_codes(group.workers)
        if killed:
            # Those that wait for the dead one hear no other signal than SIGKILL.
            self._shutdown(signal.SIGTERM, _PATIENCE)
        result = super()._monitor_workers(group)
        if not result.is_failed():
            return result
        for failure in result.failures.values():
            # Those that ended since may have done so because of the SIGTERM sent here.
            if failure.exitcode != _TERMINATED:
                codes.append(failure.exitcode)
        if self.is_stopping or any(code in _FINAL for code in codes):
            self._remaining_restarts = 0
        if not self.is_stopping:
            Agent.killed = killed
            for process in killed:
                print(f'\nerror: {process}', file=sys.stderr)
        return result


def find_killed(workers: Iterable[Any]) -> list[Killed]:
    """Return those of torchrun's workers that a signal has ended, and that nobody waited for.

    Args:
        workers (Iterable[Worker]): Children of this process. Each stays one: its status
            is left for torchrun to read.
    """
    killed = []
    for worker in workers:
        ended = _look_at(worker)
        if ended is not None and ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            killed.append(Killed(worker.global_rank, worker.id, ended.si_status))
    return killed


def find_exit_codes(workers: Iterable[Any]) -> list[int]:
    """Return the exit codes of torchrun's workers that ended by themselves, as yet unwaited for.

    Args:
        workers (Iterable[Worker]): See :func:`find_killed`.
    """
    codes = []
    for worker in workers:
        ended = _look_at(worker)
        if ended is not None and ended.si_code == os.CLD_EXITED:
            codes.append(ended.si_status)
    return codes


def _look_at(worker: Any) -> Any:
    """Return how a child of this process has ended, and leave its status to be read again.

    Returns:
        waitid_result | None: None if it runs, or if its status was read already.
    """
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    try:
        return os.waitid(os.P_PID, worker.id, options)
    except ChildProcessError:
        return None


def exit_code_of(codes: Sequence[int], killed: Sequence[Killed]) -> int:
    """Return what the command exits with when processes have failed.

    Args:
        codes (Sequence[int]): How they ended. A negative number is a signal, which may
            be torchrun's own.
        killed (Sequence[Killed]): Those that were killed before torchrun ended the
            others.

    Returns:
        int: 2 if the user must mend an error of one; else 128 and the signal's number as
        in a shell if one was killed; else the largest code of those that torchrun did
        not end.
    """
    if _USER_ERROR in codes:
        return _USER_ERROR
    if killed:
        return 128 + killed[0].number
    own = [code for code in codes if code > 0 and code != _TERMINATED]
    if own:
        return max(own)
    largest = max(codes)
    if largest > 0:
        return largest
    return 128 - largest


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
    # Of several machines the others would wait for one that does not come.
    is_alone = env.get('NNODES', '1') == '1'
    if command == 'train' and is_alone and processes.isdecimal():
        require_for_processes(words, int(processes))
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
            codes = [failure.exitcode for failure in e.failures.values()]
            code = exit_code_of(codes, Agent.killed)
        except SignalException as e:
            sys.exit(128 + int(e.sigval))
        finally:
            del env[ERRORS]  # errors of this process go to the screen
        report_errors(Path(folder), Agent.killed)
    sys.exit(code)


def report_errors(folder: Path, killed: Sequence[Killed]) -> None:
    """Print the errors that processes wrote into a folder, each once, the first one first.

    Several processes report one error with different tracebacks: of these, the last is
    printed. A lost connection follows from the end of another process, and is printed
    only where nothing else says why the command has failed.

    Args:
        folder (Path): A file for each process that reported an error.
        killed (Sequence[Killed]): The processes that were killed, which are printed
            already.
    """
    paths = sorted(folder.glob('*.txt'), key=lambda path: path.stat().st_mtime_ns)
    causes = {}
    consequences = {}
    for path in paths:
        message = path.read_text(encoding='utf-8')
        sentence = message.partition(TRACEBACK)[0]
        if any(words in sentence for words in _LOST_CONNECTION):
            consequences[sentence] = message
        else:
            causes[sentence] = message
    messages = causes
    if not causes and not killed:
        messages = consequences
    for message in messages.values():
        report(message)
    stop = folder / STOP_FILE
    # After an error, the signal was torchrun's.
    if stop.exists() and not messages and not killed:
        print(f'\n{stop.read_text(encoding="utf-8")}', file=sys.stderr)


if __name__ == '__main__':
    run_tool(main)
