"""What a recognizer says of one video, and the video with it drawn into it.

mmaction2's inferencer classifies; its visualizer writes class numbers as
pictures through moviepy, so that the drawing is done here, with OpenCV, and the
writing with PyAV.
"""

from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.tasks.video.corruption import find_defect
from lm4ve.tasks.video.video_files import write_video

Ranking = list[tuple[str, float]]
#: How many classes a picture or a video shows.
SHOWN = 3
_MIN_HEIGHT = 240


def classify(
    video: str | Path,
    config: str | Path,
    checkpoint: str | Path,
    classes: Sequence[str] | None = None,
    topk: int = SHOWN,
    device: str | None = None,
    allow_partial: bool = False,
) -> Ranking:
    """Classify a video with mmaction2's inferencer.

    Args:
        video, config, checkpoint (str | Path): Files.
        classes (Sequence[str], optional): Names in the order of labels;
            default: those of the config's data set class, or numbers.
        topk (int): How many classes to return.
        device (str, optional): Default: a GPU if there is one.
        allow_partial (bool): Load what fits of a checkpoint of another model.

    Returns:
        list[tuple[str, float]]: Names and probabilities, likeliest first.

    Raises:
        UserError: The video cannot be used, or there are too few names.
        CheckpointError: There is no such checkpoint, or it is of another model.
    """
    from lm4ve.tasks.video.inference import VideoInferencer  # which draws by this module

    defect = find_defect(str(video))
    if defect is not None:
        raise UserError(f"The video '{video}' {defect}. Fix: give another one.")
    inferencer = VideoInferencer(read_config(config), checkpoint, device, allow_partial)
    (result,) = inferencer(video)
    scores = result['pred_scores']
    classes = classes or inferencer.classes or [f'class {i}' for i in range(len(scores))]
    if len(classes) != len(scores):
        raise UserError(
            f'The model has {len(scores)} classes, and there are '
            f'{len(classes)} names. Fix: --classes, with one name '
            'a line in the order of the labels.'
        )
    order = np.argsort(-scores)[:topk]
    return [(classes[i], float(scores[i])) for i in order]


def write_annotated(video: str | Path, ranking: Ranking, out: str | Path) -> None:
    """Write a video again with a ranking in its lower left corner.

    Args:
        video (str | Path): The source; small ones are enlarged to a height of
            240 pixels, so that the text can be read.
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
    # H.264 takes even sizes only.
    size = (2 * round(width * scale / 2), 2 * round(height * scale / 2))
    drawn = [
        _draw(
            cv2.resize(f, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA),
            ranking,
        )
        for f in frames
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_video(out, np.stack(drawn), rate)


def _draw(frame: np.ndarray, ranking: Ranking) -> np.ndarray:
    """One line a class, its probability as a bar behind it."""
    height, width = frame.shape[:2]
    line = max(14, height // 14)
    top = height - line * len(ranking) - 4
    frame[top:] = frame[top:] // 3
    for i, (name, score) in enumerate(ranking):
        y = top + 2 + i * line
        bar = frame[y : y + line - 2, : round(width * score)]
        bar[:] = bar // 2 + np.array([20, 90, 40], dtype=np.uint8)
        cv2.putText(
            frame,
            f'{100 * score:.0f}% {name}',
            (4, y + line - 5),
            cv2.FONT_HERSHEY_SIMPLEX,
            line / 34,
            (255, 255, 255),
            1,
            cv2.LINE_AA,
        )
    return frame
