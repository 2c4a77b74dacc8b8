"""Let all processes of a training stop after the same iteration, without a wait in a step.

Processes run ahead of each other, and a signal may reach one of them or all at different
times. If each stopped by itself, the others would wait for its gradients for ever. To
exchange a flag in every step would make each step wait. So a thread of each process
looks at the group's store now and then:

1. A process that got a signal writes it into the store.
2. The thread of each process sees that, and writes the number of the iteration that its
   process may be in, beyond which that process will not go.
3. All stop after the largest of these numbers. A process that reaches its own waits until
   all are known. They are written by threads, so that this takes a moment even where
   the processes themselves wait for each other's gradients.
4. Where a number does not come, as of a dead process, each stops after its own. The first
   thread to answer writes which of the two it is, so that all processes learn the same.
"""

import contextlib
import threading
import time

from torch.distributed import PrefixStore, get_rank, get_world_size
from torch.distributed.distributed_c10d import _get_default_store

from lm4ve.runner.stopping import SignalHandler

#: Seconds between two looks into the store.
INTERVAL = 0.5
#: Seconds that a process waits for the numbers of the others, one of which may be dead.
PATIENCE = 60.0
#: Stands in the store for the last iteration if a number did not come.
_UNKNOWN = 'unknown'


class StopAgreement:
    """The part of one process in the agreement.

    Args:
        signals (SignalHandler): Of this process.
        done (int): How many iterations are done.
    """

    def __init__(self, signals: SignalHandler, done: int) -> None:
        self._signals = signals
        self._store = PrefixStore('lm4ve_stop', _get_default_store())
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._has_answer = threading.Event()
        self._done = done
        # The iteration beyond which this process does not go before all is decided.
        self._limit: int | None = None
        # The last one of all processes; None until it is decided, and if it is not.
        self._last: int | None = None
        #: The signal that one of the processes got, or None.
        self.asked: int | None = None

    def start(self) -> None:
        """Begin to look into the store."""
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Look no more: the training is over."""
        self._closed.set()

    def stops_after(self, done: int) -> bool:
        """Return whether all processes stop after an iteration, or have passed their last.

        Without a signal this only compares numbers.

        Args:
            done (int): How many iterations are done.
        """
        with self._lock:
            self._done = done
            limit = self._limit
        if limit is None or done < limit:
            return False
        # In short waits, so that signals are handled in between.
        while not self._has_answer.wait(INTERVAL):
            pass
        return self._last is None or done >= self._last

    @property
    def is_decided(self) -> bool:
        """Whether all processes stop after the same iteration; the same in all of them."""
        return self._last is not None

    def tell_saved(self) -> None:
        """Let the other processes end: the checkpoint is written, or could not be."""
        with _store_may_be_gone():
            self._store.set('saved', '1')

    def wait_until_saved(self) -> None:
        """Wait until the first process has written the checkpoint, or has ended.

        A launcher kills the other processes soon after one has ended.
        """
        with _store_may_be_gone():
            while not self._store.check(['saved']):
                time.sleep(INTERVAL)

    def _listen(self) -> None:
        """Find out that a process got a signal, and which iteration is the last one."""
        with _store_may_be_gone():
            if not self._wait_for_signal():
                return
            self.asked = int(self._store.get('asked'))
            with self._lock:
                self._limit = self._done + 1
            self._store.set(f'limit{get_rank()}', str(self._limit))
            own_answer = self._find_answer()
            if own_answer is None:
                return
            # The first answer of a process stands for all of them.
            answer = self._store.compare_set('last', '', own_answer).decode()
            if answer != _UNKNOWN:
                self._last = int(answer)
        self._has_answer.set()

    def _find_answer(self) -> str | None:
        """Wait for the numbers of all processes.

        Returns:
            str | None: The largest; ``_UNKNOWN`` if one does not come; None if the
            training is over.
        """
        names = [f'limit{rank}' for rank in range(get_world_size())]
        end = time.monotonic() + PATIENCE
        while not self._store.check(names):
            if self._closed.wait(INTERVAL):
                return None
            if time.monotonic() > end:
                return _UNKNOWN
        return str(max(int(self._store.get(name)) for name in names))

    def _wait_for_signal(self) -> bool:
        """Wait until a process got a signal; return whether one did before the end."""
        while not self._closed.wait(INTERVAL):
            if self._signals.asked is not None:
                self._store.set('asked', str(self._signals.asked))
            if self._store.check(['asked']):
                return True
        return False


def _store_may_be_gone() -> contextlib.suppress:
    """Suppress the errors of a store whose process has ended."""
    return contextlib.suppress(RuntimeError)
