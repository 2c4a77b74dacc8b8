"""Recognizes actions in video files, and writes them again with the likeliest classes."""

from pathlib import Path
from typing import Any

from lm4ve.tasks.base.inference import FileInferencer
from lm4ve.tasks.video import TASK
from lm4ve.tasks.video.visualization import rank, write_annotated


class VideoInferencer(FileInferencer):
    """Predicts for one clip and one crop of each video, as mmaction2's inferencer does."""

    task = TASK.name

    def __call__(
        self,
        inputs: Any,
        batch_size: int = 1,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | Path | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Classify; see :meth:`lm4ve.tasks.base.inference.FileInferencer.__call__`.

        Args:
            inputs (str | Path | Sequence[str | Path]): Videos, or folders or patterns of
                such.
            out_dir (str | Path, optional): Write each video here with its likeliest
                classes.
            batch_size, show, wait_time, **options: Passed on.
        """
        results = super().__call__(inputs, batch_size, show, wait_time, **options)
        if out_dir is None:
            return results
        for number, result in enumerate(results):
            ranking = rank(result['pred_scores'], self.classes)
            video = Path(result['path'])
            out = Path(out_dir) / f'{number:05d}_{video.stem}.mp4'
            write_annotated(video, ranking, out)
        return results
