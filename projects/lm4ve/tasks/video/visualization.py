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
#: Frames a second of a video that does not say its rate.
_DEFAULT_RATE = 25


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
    names = classes or [f'class {label}' for label in range(len(scores))]
    if len(names) != len(scores):
        raise UserError(
            f'The model has {len(scores)} classes, and there are {len(names)} names.'
        )
    best_labels = np.argsort(-scores)[:topk]
    return [(names[label], float(scores[label])) for label in best_labels]


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
    frames, rate = _read_frames(video)
    height, width = frames[0].shape[:2]
    scale = max(1.0, _MIN_HEIGHT / height)
    # H.264 needs even sides.
    size = 2 * round(width * scale / 2), 2 * round(height * scale / 2)
    method = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    drawn = []
    for frame in frames:
        resized = cv2.resize(frame, size, interpolation=method)
        drawn.append(_draw(resized, ranking))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_video(out, np.stack(drawn), rate)


def _read_frames(video: str | Path) -> tuple[list[np.ndarray], int]:
    """Return a video's frames, uint8 ``[H, W, 3]``, RGB, and how many a second it shows."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        rate = round(float(stream.average_rate or _DEFAULT_RATE))
        frames = [f.to_ndarray(format='rgb24') for f in container.decode(stream)]
    if rate == 0:
        # A slow animation, of less than a frame in two seconds.
        rate = _DEFAULT_RATE
    return frames, rate


def _draw(frame: np.ndarray, ranking: Ranking) -> np.ndarray:
    """Write a ranking into the darkened bottom of a frame, one class a line; return it.

    Args:
        frame (np.ndarray): uint8 ``[H, W, 3]``, RGB; changed in place.
        ranking (list[tuple[str, float]]): Names and probabilities.
    """
    line = max(14, len(frame) // 14)
    top = len(frame) - line * len(ranking) - 4
    frame[top:] = frame[top:] // 3
    for number, (name, score) in enumerate(ranking, start=1):
        cv2.putText(
            frame,
            f'{100 * score:.0f}% {name}',
            (4, top + number * line - 3),
            fontFace=cv2.FONT_HERSHEY_SIMPLEX,
            fontScale=line / 34,
            color=(255, 255, 255),
            thickness=1,
            lineType=cv2.LINE_AA,
        )
    return frame
