"""One bar for a whole study, with the time to its end.

How long a study takes is not known before it runs: it is told when the first batch of
trainings is done, from what these took, and counts down from there.
"""

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


class Progress:
    """The bar of a study's trainings.

    Args:
        costs (Mapping[str, float]): Variant -> about how much work a training is, in any
            unit that all share.
        trainings (Mapping[str, int]): Variant -> how many are expected; more may come.
        workers (int): How many trainings run at a time.
    """

    def __init__(
        self, costs: Mapping[str, float], trainings: Mapping[str, int], workers: int
    ) -> None:
        self.costs = costs
        self.left = dict(trainings)
        self.workers = max(workers, 1)
        self.has_told = False
        self.seconds: dict[str, list[float]] = {name: [] for name in costs}
        self.bar: Any = tqdm(
            total=sum(trainings.values()),
            desc='trainings',
            bar_format='{desc} {n_fmt}/{total_fmt} |{bar}| {postfix}',
            disable=None,  # where nobody looks
        )

    def skip(self, variant: str) -> None:
        """Count a training of a variant whose result is there already."""
        self._count(variant)

    def finish(self, variant: str, seconds: float) -> None:
        """Count a training of a variant that took so many seconds of a worker."""
        self.seconds[variant].append(seconds)
        self._count(variant)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.bar.write(line)

    def _count(self, variant: str) -> None:
        """Count a training, and show the time that is left."""
        self.left[variant] -= 1
        if self.left[variant] < 0:  # more than expected
            self.left[variant] = 0
            self.bar.total += 1
        left = self.seconds_left()
        if left is not None:
            self.bar.set_postfix_str(f'{describe_seconds(left)} left', refresh=False)
        self.bar.update()

    def seconds_left(self) -> float | None:
        """Return about how long the rest takes; None before the first training is done."""
        spent = 0.0
        work = 0.0
        for variant, seconds in self.seconds.items():
            spent += sum(seconds)
            work += self.costs[variant] * len(seconds)
        if work == 0:
            return None
        left = 0.0
        for variant, count in self.left.items():
            own = self.seconds[variant]
            if own:
                left += count * sum(own) / len(own)
            else:
                left += count * self.costs[variant] * spent / work
        return left / self.workers

    def tell(self) -> None:
        """Print the time that is left, once: after the first batch of jobs."""
        left = self.seconds_left()
        if left is not None and not self.has_told:
            self.has_told = True
            self.say(f'About {describe_seconds(left)} to the end.')

    def close(self) -> None:
        """End the bar: what was expected and did not come is not missing."""
        self.bar.total = self.bar.n
        self.bar.set_postfix_str('done')
        self.bar.close()


def describe_seconds(seconds: float) -> str:
    """Return a time in words with one unit: '40 s', '12 min', '3.5 h'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = seconds / 60
    if minutes < 90:
        return f'{minutes:.0f} min'
    return f'{minutes / 60:.1f} h'
