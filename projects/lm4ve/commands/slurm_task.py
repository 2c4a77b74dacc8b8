"""Run a command as a task of a Slurm job step, and say so if a signal kills it.

    srun python -m lm4ve.commands.slurm_task train CONFIG --launcher slurm

The scripts ``tools/slurm_*.sh`` start it. Without it, a task that runs out of memory ends
in silence, and the others fail at a closed connection.
"""

import os
import sys

from lm4ve.commands.killed import Killed
from lm4ve.runner.ending.child import run_child
from lm4ve.runner.ending.signals import STOP_SIGNALS, exit_code_after
from lm4ve.runner.exit_codes import TRY_AGAIN


def main() -> None:
    """Run the command in a process, and exit with a code of :mod:`lm4ve.runner.exit_codes`."""
    command = [sys.executable, '-u', '-m', 'lm4ve.commands', *sys.argv[1:]]
    ended = run_child(command, STOP_SIGNALS)
    if ended.code >= 0:
        sys.exit(ended.code)
    number = -ended.code
    if number in ended.passed_on:
        # Until processes have met, they leave signals their default action.
        sys.exit(exit_code_after(number))
    rank = int(os.environ.get('SLURM_PROCID', 0))
    print(f'\nerror: {Killed(rank, ended.pid, number)}', file=sys.stderr)
    sys.exit(TRY_AGAIN)


if __name__ == '__main__':
    main()
