"""What ways of running trials have in common: which ones run, and what is said of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from lm4ve.ablation.grid import Trial
from lm4ve.ablation.store import Store


@dataclass(frozen=True)
class Failure:
    """A trial that gave no result, with the file that says why."""

    trial: Trial
    log: Path
    reason: str


class Executor(ABC):
    """Runs the trials of a grid that have no result yet.

    A trial that fails does not stop the others.

    Args:
        store (Store): Locked.
        keep_checkpoints (bool): Keep the last checkpoint of each trial.
        console (Console): Shows the progress, as a bar on a terminal and as lines
            elsewhere.
    """

    def __init__(
        self, store: Store, keep_checkpoints: bool = False, console: Console | None = None
    ) -> None:
        self.store = store
        self.keep_checkpoints = keep_checkpoints
        self.console = console or Console()

    def run(self, trials: Iterable[Trial], say: Callable[[dict], str]) -> list[Failure]:
        """Run the trials that have no result yet.

        Args:
            trials (Iterable[Trial]): The trials; those of one id are run once.
            say (Callable): Turns a result into a few words for the progress.

        Returns:
            list[Failure]: The failures in the trials' order.
        """
        wanted = list({t.id: t for t in trials}.values())
        todo = [t for t in wanted if self.store.result(t) is None]
        if not wanted:
            return []
        columns = *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()
        shown = self.console.is_terminal
        failed: list[Failure] = []
        with Progress(*columns, console=self.console, disable=not shown) as bar:
            done = len(wanted) - len(todo)
            task = bar.add_task(wanted[0].stage, total=len(wanted), completed=done)

            def ended(trial: Trial, failure: Failure | None) -> None:
                nonlocal done
                done += 1
                bar.advance(task)
                words = failure.reason if failure else say(self.store.result(trial))
                self.say(f'{done}/{len(wanted)} {trial}: {words}')
                failed.extend([failure] if failure else [])

            self._run(todo, ended)
        order = [t.id for t in todo]
        return sorted(failed, key=lambda f: order.index(f.trial.id))

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def failure(self, trial: Trial, ending: str) -> Failure:
        """Return what is known of a trial without a result."""
        log = self.store.folder(trial) / 'log.txt'
        lines = log.read_text(errors='replace').strip().splitlines() if log.exists() else []
        return Failure(trial, log, f'{ending}: {lines[-1] if lines else "no output"}')

    @abstractmethod
    def _run(self, todo: list[Trial], ended: Callable[[Trial, Failure | None], None]) -> None:
        """Run trials; call ``ended`` for each in the order in which they end."""
