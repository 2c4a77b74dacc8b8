"""Turns of points in the plane, and lines of points."""

import numpy as np


def rotation(angle: float) -> np.ndarray:
    """Return the matrix that turns column vectors by ``angle``, ``[2, 2]``."""
    cosine = np.cos(angle)
    sine = np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def resample(line: np.ndarray, count: int) -> np.ndarray:
    """Space points equally by arc length, ends included: ``[n, D] -> [count, D]``.

    A line of one point, or of no length, is repeated.
    """
    line = np.asarray(line, dtype=np.float64)
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=-1)
    arc_lengths = np.concatenate([[0.0], np.cumsum(lengths)])
    moves = np.concatenate([[True], lengths > 0])
    line = line[moves]
    arc_lengths = arc_lengths[moves]
    wanted = np.linspace(0, arc_lengths[-1], count)
    columns = [np.interp(wanted, arc_lengths, column) for column in line.T]
    return np.stack(columns, axis=-1)
