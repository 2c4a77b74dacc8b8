"""Magnitude and frequency against numpy, written from the paper's definitions."""

import numpy as np
import pytest
import torch

from lm4ve.analysis import frequency, magnitude, normalize
from lm4ve.errors import UserError


def tokens(*shape) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape)).float()


def numpy_magnitude(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return np.sqrt(((x - x.mean(0)) ** 2).sum(1))


def numpy_frequency(x: np.ndarray, wrap: bool) -> np.ndarray:
    # The transform as a matrix, not as an FFT.
    n = np.arange(x.shape[1])
    spectrum = x.astype(np.float64) @ np.exp(-2j * np.pi * np.outer(n, n) / len(n))
    # The sums that are real but for rounding: their angle is 0 or pi.
    for k in {0, len(n) // 2} if len(n) % 2 == 0 else {0}:
        spectrum[:, k] = spectrum[:, k].real
    angles = np.arctan2(spectrum.imag, spectrum.real)
    if not wrap:
        return np.sqrt(((angles - angles.mean(0)) ** 2).sum(1))
    mean = np.arctan2(np.sin(angles).mean(0), np.cos(angles).mean(0))
    apart = angles - mean
    apart = np.arctan2(np.sin(apart), np.cos(apart))
    return np.sqrt((apart**2).sum(1))


@pytest.mark.parametrize('channels', [7, 16])
def test_measures_equal_numpy(channels):
    x = tokens(3, 11, channels)
    expected = [numpy_magnitude(s) for s in x.numpy()]
    np.testing.assert_allclose(magnitude(x).numpy(), expected, rtol=0, atol=1e-6)
    for wrap in (True, False):
        expected = [numpy_frequency(s, wrap) for s in x.numpy()]
        np.testing.assert_allclose(frequency(x, wrap=wrap).numpy(), expected, rtol=0, atol=1e-6)


def test_padding_does_not_count():
    x = tokens(2, 9, 6)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[1, 5:] = True
    changed = torch.where(mask[..., None], torch.tensor(float('nan')), x)
    for measure in (magnitude, frequency):
        got = measure(changed, mask)
        torch.testing.assert_close(got[0], measure(x[:1])[0])
        torch.testing.assert_close(got[1, :5], measure(x[1:, :5])[0])
        assert (got[1, 5:] == 0).all()


def test_normalize_spans_0_to_1_for_each_sample():
    values = torch.tensor([[2.0, 4.0, 3.0], [7.0, 7.0, 7.0], [-1.0, 5.0, 99.0]])
    mask = torch.tensor([[False] * 3, [False] * 3, [False, False, True]])
    expected = torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(normalize(values, mask), expected)


def test_values_that_are_not_finite_are_refused():
    broken = tokens(2, 4, 5)
    broken[1, 2, 3] = float('inf')
    for measure in (magnitude, frequency):
        with pytest.raises(UserError, match='not finite'):
            measure(broken)
