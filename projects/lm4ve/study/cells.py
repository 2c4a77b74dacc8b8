"""Numbers of a study in tables and sentences."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """What the scores of a study are.

    Attributes:
        name (str): As tables call it.
        unit (str): Of scores; '%' if a score is a share of the test samples; empty if
            nobody knows it.
        greater_is_better (bool): Whether a larger score is better.
    """

    name: str = 'accuracy'
    unit: str = '%'
    greater_is_better: bool = True

    @property
    def unit_of_differences(self) -> str:
        """The unit of what one score has more than another."""
        return 'points' if self.unit == '%' else self.unit

    @property
    def better(self) -> str:
        """Which scores are better: 'higher' or 'lower'."""
        return 'higher' if self.greater_is_better else 'lower'

    @property
    def with_unit(self) -> str:
        """The name with the unit."""
        return f'{self.name} [{self.unit}]' if self.unit else self.name

    def score(self, value: float, half: float = math.nan) -> str:
        """Return a score, with half of its interval if it has one: '95.3 ± 0.4'."""
        if math.isnan(half):
            return self._number(value)
        return f'{self._number(value)} ± {self._number(half)}'

    def difference(self, value: float) -> str:
        """Return a difference with its sign; '-' for NaN."""
        return self._number(value, '+')

    def interval(self, low: float, high: float, sign: str = '+') -> str:
        """Return the ends of an interval; '-' for one that cannot be estimated."""
        if math.isnan(low):
            return '-'
        return f'{self._number(low, sign)} to {self._number(high, sign)}'

    def amount(self, value: float) -> str:
        """Return how much: '1 point', '2.5 points', '0.02 m'."""
        return self._with_unit(self._number(value).removesuffix('.0'))

    def margin(self, value: float) -> str:
        """Return a margin with all its digits: a rounded one was not tested."""
        return self._with_unit(f'{value:.10g}')

    def _number(self, value: float, sign: str = '') -> str:
        """Return a number of points with one decimal, of others with four digits."""
        if self.unit == '%' and not math.isnan(value):
            return f'{value:{sign}.1f}'
        return format_number(value, sign)

    def _with_unit(self, number: str) -> str:
        """Return the number of a difference with its unit."""
        if self.unit == '%' and number == '1':
            return '1 point'
        return f'{number} {self.unit_of_differences}'.rstrip()


def format_number(value: float, sign: str = '') -> str:
    """Return four significant digits; '-' for NaN.

    Args:
        value (float): The number.
        sign (str): '+' gives positive numbers a sign.
    """
    if math.isnan(value):
        return '-'
    return f'{value:{sign}.4g}'


def format_p_value(p: float) -> str:
    """Return a p value with three decimals; '-' for NaN."""
    if math.isnan(p):
        return '-'
    if p < 0.001:
        return '< 0.001'
    return f'{p:.3f}'
