"""Start a command on several processes of one or more machines, by torchrun.

    python -m lm4ve.commands.launch train GPUS CONFIG [flags]

``tools/dist_train.sh`` and ``tools/dist_test.sh`` call it. Machines and port come from
the environment: NNODES, NODE_RANK, MASTER_ADDR, PORT; or, for torchrun's c10d
rendezvous, RDZV_ENDPOINT in place of the last two, where NODE_RANK may be left out.
MAX_RESTARTS is how often the processes of a training are started again when one of them
dies. SIGTERM, SIGUSR1 and SIGUSR2 are passed on to all processes, which save and end
within SAVE_SECONDS.

The launcher is torchrun's; this module turns its end into the exit codes of
:mod:`lm4ve.runner.exit_codes`. One class of torchrun's interior is left, :class:`Agent`:
plain torchrun starts processes again after any exit code, also after a mistake of the
user's and after an orderly stop, and gives nobody the codes before it ends the other
processes, so that a killed one could not be told from those that torchrun killed.
"""

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.distributed import run as torchrun
from torch.distributed.elastic.agent.server import local_elastic_agent
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher import api

from lm4ve.commands.killed import Killed
from lm4ve.commands.train import require_for_processes
from lm4ve.runner.command_line import ERRORS, STOP_FILE, run_tool
from lm4ve.runner.ending.signals import INTERRUPTED, STOP_SIGNALS, exit_code_after
from lm4ve.runner.error_lines import TRACEBACK, is_lost_connection
from lm4ve.runner.exit_codes import STOPPED, TRY_AGAIN, USERS_MISTAKE

#: Seconds that machines wait for the last one, at the start and after a restart.
_MEET_SECONDS = '900'
#: Seconds that processes have to save and end once a signal came.
_SAVE_SECONDS = '600'
#: Exit codes after which a new start is of no use.
_FINAL = (USERS_MISTAKE, STOPPED)
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
    wait = env.get('MEET_SECONDS', _MEET_SECONDS)
    ranks_are_fixed = 'RDZV_ENDPOINT' not in env and restarts == '0'
    if ranks_are_fixed:
        flags: dict[str, Any] = dict(
            nnodes=nodes,
            node_rank=rank or 0,
            master_addr=host,
            master_port=port,
            rdzv_conf=f'timeout={wait}',
        )
    else:
        endpoint = env.get('RDZV_ENDPOINT', f'{host}:{port}')
        settings = f'join_timeout={wait},read_timeout={wait}'
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


def signal_flags(env: Mapping[str, str]) -> list[str]:
    """Return the flags of torchrun by which it passes signals on and waits for the end.

    Older ones than that of PyTorch 2.13 lack a flag: they kill what has not ended after
    30 seconds, which is said once.
    """
    known = torchrun.get_args_parser().format_help()
    if '--shutdown-timeout' not in known:
        print(
            f'torchrun of PyTorch {torch.__version__} leaves processes 30 s to save at a '
            'signal. Fix for longer ones: PyTorch 2.13.',
            file=sys.stderr,
        )
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, _raise_signal)
        return []
    # torchrun's own, without which a lost terminal leaves the processes alone, and ours.
    handled = (signal.SIGHUP, signal.SIGQUIT, *STOP_SIGNALS)
    names = ','.join(number.name for number in handled)
    seconds = env.get('SAVE_SECONDS', _SAVE_SECONDS)
    return [f'--signals-to-handle={names}', f'--shutdown-timeout={seconds}']


def _raise_signal(number: int, frame: object) -> None:
    """Handle a signal as torchrun handles SIGTERM, at which it ends all processes."""
    raise SignalException(f'signal {number}', sigval=signal.Signals(number))


class Agent(local_elastic_agent.LocalElasticAgent):
    """torchrun's agent, which reports why processes ended and starts only some again."""

    #: What the command exits with. torchrun builds the agent, and gives it to nobody.
    exit_code: ClassVar[int] = TRY_AGAIN

    def _monitor_workers(self, group: Any) -> Any:
        """Look after the processes as torchrun does; report an end, and decide on a new start."""
        # Looked for first: torchrun ends the others when one has failed.
        ended = find_ended(group.workers)
        result = super()._monitor_workers(group)
        if not result.is_failed():
            return result
        if not any(ended.values()):
            # The first one to fail ended since.
            ended = {rank: each.exitcode for rank, each in result.failures.items()}
        Agent.exit_code = exit_code_of(ended.values())
        if Agent.exit_code in _FINAL:
            self._remaining_restarts = 0
        killed: list[Killed] = []
        if Agent.exit_code == TRY_AGAIN:
            killed = killed_of(group.workers, ended)
        for process in killed:
            print(f'\nerror: {process}', file=sys.stderr)
        report_errors(Path(os.environ[ERRORS]), bool(killed))
        return result


def killed_of(workers: Iterable[Any], ended: Mapping[int, int]) -> list[Killed]:
    """Return those of torchrun's workers that a signal has killed.

    Args:
        workers (Iterable[Worker]): All of this machine.
        ended (Mapping[int, int]): How they ended, as :func:`find_ended` returns it.
    """
    killed = []
    for worker in workers:
        code = ended.get(worker.global_rank, 0)
        if code < 0:
            killed.append(Killed(worker.global_rank, worker.id, -code))
    return killed


def find_ended(workers: Iterable[Any]) -> dict[int, int]:
    """Return how those of torchrun's workers have ended that nobody waited for.

    Args:
        workers (Iterable[Worker]): Children of this process. Each stays one: its status
            is left for torchrun to read.

    Returns:
        dict[int, int]: Global rank -> its exit code, or minus the signal that killed it.
    """
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    codes = {}
    for worker in workers:
        try:
            ended = os.waitid(os.P_PID, worker.id, options)
        except ChildProcessError:
            continue
        if ended is None:
            continue
        is_own = ended.si_code == os.CLD_EXITED
        codes[worker.global_rank] = ended.si_status if is_own else -ended.si_status
    return codes


def exit_code_of(codes: Collection[int]) -> int:
    """Return what the command exits with when processes have failed.

    Args:
        codes (Collection[int]): How they ended, as :func:`find_ended` returns it.

    Returns:
        int: See :mod:`lm4ve.runner.exit_codes`.
    """
    if USERS_MISTAKE in codes:
        return USERS_MISTAKE
    # Before processes have met, they leave signals their default action.
    orderly = {0, STOPPED, INTERRUPTED, *(-number for number in STOP_SIGNALS)}
    if all(code in orderly for code in codes):
        return STOPPED
    return TRY_AGAIN


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
            *signal_flags(env),
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
            code = _run(args, Path(folder))
        finally:
            del env[ERRORS]  # errors of this process go to the screen
    if code:
        sys.exit(code)


def _run(args: Any, folder: Path) -> int:
    """Run torchrun; return what the command exits with.

    Args:
        args (Namespace): torchrun's.
        folder (Path): Where the processes leave their errors.
    """
    try:
        torchrun.run(args)
    except ChildFailedError:
        return Agent.exit_code
    except SignalException as e:
        if report_errors(folder):
            return TRY_AGAIN
        return exit_code_after(e.sigval)
    except (RendezvousError, torch.distributed.DistError) as e:
        _report_absence(args, e)
        return TRY_AGAIN
    return 0


def _report_absence(args: Any, error: Exception) -> None:
    """Print that the machines did not meet, and what torchrun says of it."""
    address = args.rdzv_endpoint or f'{args.master_addr}:{args.master_port}'
    words = ' '.join(str(error).split())[:300]
    print(
        f'\nerror: {args.nnodes} machines did not meet at {address} within MEET_SECONDS, '
        f'or lost each other ({type(error).__name__}: {words}). Fix: start all of them, and '
        'let them reach that address.',
        file=sys.stderr,
    )


def report_errors(folder: Path, is_explained: bool = False) -> bool:
    """Print the errors that processes wrote into a folder, each once, the first one first.

    Several processes report one error with different tracebacks: of these, the last is
    printed. A lost connection follows from the end of another process, and is printed
    only where nothing else says why the command has failed. The files are deleted: a
    later start has errors of its own.

    Args:
        folder (Path): A file for each process that reported an error.
        is_explained (bool): Whether a cause was printed already.

    Returns:
        bool: Whether an error was printed.
    """
    paths = sorted(folder.glob('*.txt'), key=lambda path: path.stat().st_mtime_ns)
    causes = {}
    consequences = {}
    for path in paths:
        message = path.read_text(encoding='utf-8')
        path.unlink()
        sentence = message.partition(TRACEBACK)[0]
        if is_lost_connection(sentence):
            consequences[sentence] = message
        else:
            causes[sentence] = message
    messages = causes
    if not causes and not is_explained:
        messages = consequences
    for message in messages.values():
        print(f'\nerror: {message}', file=sys.stderr)
    stop = folder / STOP_FILE
    if stop.exists():
        line = stop.read_text(encoding='utf-8')
        stop.unlink()
        # After an error, the signal was torchrun's.
        if not messages and not is_explained:
            print(f'\n{line}', file=sys.stderr)
    return bool(messages)


if __name__ == '__main__':
    run_tool(main)
