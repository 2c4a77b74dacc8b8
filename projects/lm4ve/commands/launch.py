"""Start a command on several processes of one or more machines, by torchrun.

    python -m lm4ve.commands.launch train GPUS CONFIG [flags]

``tools/dist_train.sh`` and ``tools/dist_test.sh`` call it. Machines and port come from
the environment: NNODES, NODE_RANK, MASTER_ADDR, PORT. An error of the user is printed
once, not by every process, and nothing follows it.
"""

import logging
import os
import re
import socket
import sys
import tempfile
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from lm4ve.engine.command_line import ERRORS, run_tool
from lm4ve.engine.messages import busy_port
from lm4ve.errors import UserError


def number(name: str, value: str, least: int, most: int | None = None) -> int:
    """Return a number from the command line or the environment.

    Raises:
        UserError: It is none, below the least or above the most.
    """
    if not re.fullmatch('[0-9]{1,9}', value) or not least <= int(value) <= (most or int(value)):
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


def main() -> None:
    command, processes, *words = sys.argv[1:]
    env = os.environ
    count = number('GPUS', processes, 1)
    rank = number('NODE_RANK', env.get('NODE_RANK', '0'), 0)
    port = number('PORT', env.get('PORT', '29500'), 1, 65535)
    address = env.get('MASTER_ADDR', '127.0.0.1')
    if rank == 0:
        check_port(address, port)
    args = torchrun.parse_args([
        f'--nnodes={number("NNODES", env.get("NNODES", "1"), 1)}',
        f'--node_rank={rank}',
        f'--master_addr={address}',
        f'--master_port={port}',
        f'--nproc_per_node={count}',
        '--module',
        'lm4ve.commands',
        command,
        *words,
        '--launcher',
        'pytorch',
    ])  # fmt: skip
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
