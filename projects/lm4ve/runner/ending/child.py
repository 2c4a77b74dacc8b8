"""Run a command as a child that gets the signals of its parent."""

import signal
import subprocess
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Ended(NamedTuple):
    """How a child has ended.

    Attributes:
        pid (int): Its id on this machine.
        code (int): Its exit code, or minus the signal that killed it.
        passed_on (list[int]): The signals that it was sent.
    """

    pid: int
    code: int
    passed_on: list[int]


def run_child(command: Sequence[str], numbers: Iterable[int]) -> Ended:
    """Run a command, and send it the signals that this process gets until it ends.

    Some clusters signal all processes of a task, others the first one only.

    Args:
        command (Sequence[str]): The program and its arguments.
        numbers (Iterable[int]): The signals to pass on.
    """
    process = subprocess.Popen(command)
    passed_on = []

    def pass_on(number: int, frame: object) -> None:
        passed_on.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in numbers}
    code = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    return Ended(process.pid, code, passed_on)
