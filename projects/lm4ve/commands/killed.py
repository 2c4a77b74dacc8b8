"""Say which process of a training was killed by a signal.

The process itself cannot: SIGKILL, as of a machine without memory, leaves it no time.
"""

import signal
import socket
from typing import NamedTuple


class Killed(NamedTuple):
    """A process that a signal has ended.

    Attributes:
        rank (int): Its rank among all processes.
        pid (int): Its id on this machine.
        number (int): The signal.
    """

    rank: int
    pid: int
    number: int

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        place = f'{socket.gethostname()}, process {self.pid}'
        text = f'rank {self.rank} ({place}) was killed by {name}'
        if self.number == signal.SIGKILL:
            text += ' (out of memory?)'
        return text
