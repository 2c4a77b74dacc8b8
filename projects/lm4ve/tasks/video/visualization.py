"""Draws the predicted classes into a video.

mmaction2's visualizer writes class numbers as pictures through moviepy, so OpenCV draws
here and PyAV writes.
"""

from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from lm4ve.errors import UserError
from lm4ve.tasks.video.datasets.video_files import write_video

Ranking = list[tuple[str, float]]
#: The number of classes in a picture or a video.
SHOWN = 3
_MIN_HEIGHT = 240


def rank(
    scores: np.ndarray, classes: Sequence[str] | None = None, topk: int = SHOWN
) -> Ranking:
    """Return the likeliest classes with their probabilities.

    Args:
        scores (np.ndarray): Float ``[classes]``.
        classes (Sequence[str], optional): Their names; default: numbers.
        topk (int): How many to return.

    Raises:
        UserError: There are more or fewer names than scores.
    """
    names = classes or [f'class {i}' for i in range(len(scores))]
    if len(names) != len(scores):
        raise UserError(
            f'The model has {len(scores)} classes, and there are {len(names)} names.'
        )
    return [(names[i], float(scores[i])) for i in np.argsort(-scores)[:topk]]


def write_annotated(video: str | Path, ranking: Ranking, out: str | Path) -> None:
    """Write a copy of a video with a ranking in its lower left corner.

    Args:
        video (str | Path): The source. Small ones are enlarged to a height of 240
            pixels, so that the text can be read.
        ranking (list[tuple[str, float]]): Names and probabilities.
        out (str | Path): The MP4 file to write (H.264, without sound).

    Raises:
        UserError: ``out`` is the source itself.
    """
    out = Path(out)
    if out.exists() and out.samefile(video):
        raise UserError(f"'{out}' is the video itself. Fix: write to another file.")
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        rate = round(float(stream.average_rate or 25)) or 25
        frames = [f.to_ndarray(format='rgb24') for f in container.decode(stream)]
    height, width = frames[0].shape[:2]
    scale = max(1.0, _MIN_HEIGHT / height)
    size = [
        2 * round(side * scale / 2) for side in (width, height)
    ]  # H.264 needs even ones
    method = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    drawn = [_draw(cv2.resize(f, size, interpolation=method), ranking) for f in frames]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_video(out, np.stack(drawn), rate)


def _draw(frame: np.ndarray, ranking: Ranking) -> np.ndarray:
    """Write one line per class into the darkened bottom of a frame."""
    line = max(14, len(frame) // 14)
    top = len(frame) - line * len(ranking) - 4
    frame[top:] = frame[top:] // 3
    style = (cv2.FONT_HERSHEY_SIMPLEX, line / 34, (255, 255, 255), 1, cv2.LINE_AA)
    for i, (name, score) in enumerate(ranking, start=1):
        cv2.putText(
            frame, f'{100 * score:.0f}% {name}', (4, top + i * line - 3), *style
        )
    return frame
