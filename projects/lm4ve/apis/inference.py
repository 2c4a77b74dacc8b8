"""One call that asks a trained model of any task about somebody's files."""

import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from lm4ve.apis.models import find_config, in_scope_of
from lm4ve.errors import UserError
from lm4ve.tasks import Task, all_tasks, task_of_config


def inference(
    config: str | Path | Config,
    checkpoint: str | Path | None,
    inputs: Any,
    show: bool = False,
    out_dir: str | Path | None = None,
    batch_size: int = 1,
    device: str | None = None,
    progress: bool = False,
    allow_partial: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """Predict for images, videos, point clouds, traffic scenes, or images with texts.

    Images and videos go through mmpretrain's and mmaction2's inferencers, all others
    through :mod:`lm4ve.tasks.base.inferencer`.

    Args:
        config (str | Path | Config): That the model was trained with: a file, a config, or a
            name of :func:`lm4ve.apis.list_models`.
        checkpoint (str | Path, optional): Its checkpoint. None: random weights, with a
            warning.
        inputs (str | Path | np.ndarray | Sequence): One or several; arrays for images only,
            uint8 ``[H, W, 3]``, BGR.
        show (bool): Show pictures in a window.
        out_dir (str | Path, optional): Write a picture (a video of a video) of each input here.
        batch_size (int): How many inputs are computed at a time.
        device (str, optional): Default: a GPU if there is one.
        progress (bool): Show a bar.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        **options: What a task needs beside its files: ``question=`` or ``caption=``
            (vision-language), with ``situation=`` of SQA3D, ``map_dir=`` (Argoverse 1).

    Returns:
        list[dict]: What is predicted of each input, as plain data: ``pred_label``,
        ``pred_score``, ``pred_scores`` and ``pred_class`` of a classifier;
        ``trajectories`` and ``probabilities`` of a forecaster; ``pred_answer`` and
        ``answers`` to a question; ``captions`` or ``images`` ranked for a caption.

    Raises:
        UserError: An input is missing, unreadable, or of another task; the task has no such
            option, or its packages are not installed.
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another model.
    """
    cfg = find_config(config)
    if batch_size < 1 or (isinstance(inputs, Sequence) and not inputs):
        raise UserError(
            f'inputs={inputs!r} and batch_size={batch_size}: there must be at least one of either.'
        )
    with in_scope_of(cfg):
        task = task_of_config(cfg)
        others = {n for t in all_tasks() for n in t.input_options} - set(task.input_options)
        if wrong := sorted(others & set(options)):
            raise UserError(
                f'{wrong[0]!r} belongs to another task than {task.title}, which is what the config '
                f'is of. Fix: leave it out{_or_give(task)}.'
            )
        try:
            kind = pkgutil.resolve_name(task.inferencer)
        except ImportError as e:
            raise UserError(
                f'Inference of {task.title} cannot be imported: {e}. Fix: pip install '
                f'"lm4ve[{task.extra}]".'
            ) from e
        run = kind(
            cfg, checkpoint, device=device, allow_partial=allow_partial, show_progress=progress
        )
        found: list[dict[str, Any]] = run(
            inputs, batch_size=batch_size, show=show, out_dir=out_dir, **options
        )
    return found


def _or_give(task: Task) -> str:
    return f', or give {" or ".join(task.input_options)}' if task.input_options else ''
