"""Run a command as a task of a Slurm job step, and say so if a signal kills it.

    srun python -m lm4ve.commands.slurm_task train CONFIG --launcher slurm

The scripts ``tools/slurm_*.sh`` start it. Without it, a task that runs out of memory ends
in silence, and the others fail at a closed connection.
"""

import os
import signal
import subprocess
import sys

from lm4ve.commands.killed import Killed
from lm4ve.runner.ending.signals import STOP_SIGNALS
from lm4ve.runner.exit_codes import STOPPED, TRY_AGAIN


def main() -> None:
    """Run the command in a process, and exit with a code of :mod:`lm4ve.runner.exit_codes`."""
    command = [sys.executable, '-u', '-m', 'lm4ve.commands', *sys.argv[1:]]
    process = subprocess.Popen(command)
    passed_on = []

    def pass_on(number: int, frame: object) -> None:
        # Some clusters signal all processes of a task, others this one only.
        passed_on.append(number)
        process.send_signal(number)

    for number in STOP_SIGNALS:
        signal.signal(number, pass_on)
    code = process.wait()
    if code >= 0:
        sys.exit(code)
    if -code in passed_on:
        # Until processes have met, they leave signals their default action.
        sys.exit(STOPPED)
    rank = int(os.environ.get('SLURM_PROCID', 0))
    print(f'\nerror: {Killed(rank, process.pid, -code)}', file=sys.stderr)
    sys.exit(TRY_AGAIN)


if __name__ == '__main__':
    main()
