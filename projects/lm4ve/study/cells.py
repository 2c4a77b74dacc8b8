"""Numbers in the cells of tables."""

import math


def format_number(value: float, sign: str = '') -> str:
    """Return four significant digits; '-' for NaN.

    Args:
        value (float): The number.
        sign (str): '+' gives positive numbers a sign.
    """
    if math.isnan(value):
        return '-'
    return f'{value:{sign}.4g}'


def points(value: float) -> str:
    """Return a number of points as text with at most one decimal: '1 point', '2.5 points'."""
    return _with_noun(f'{value:.1f}'.removesuffix('.0'))


def points_of_margin(margin: float) -> str:
    """Return a margin as text with all its digits: a rounded one was not tested."""
    return _with_noun(f'{margin:.10g}')


def _with_noun(number: str) -> str:
    """Return a number of points with its noun."""
    return '1 point' if number == '1' else f'{number} points'


def format_interval(low: float, high: float, sign: str = '') -> str:
    """Return an interval in words; '-' for NaN."""
    if math.isnan(low):
        return '-'
    return f'{format_number(low, sign)} to {format_number(high, sign)}'


def format_p_value(p: float) -> str:
    """Return a p value with three decimals; '-' for NaN."""
    if math.isnan(p):
        return '-'
    if p < 0.001:
        return '< 0.001'
    return f'{p:.3f}'
