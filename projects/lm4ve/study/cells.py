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
