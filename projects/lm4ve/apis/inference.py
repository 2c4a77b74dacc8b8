"""One function that applies a trained model of any task to a user's files."""

import glob
import pkgutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from lm4ve.apis.models import in_scope_of, loaded
from lm4ve.errors import check
from lm4ve.tasks import task_of_config


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

    The task's inferencer does it, by default
    :class:`lm4ve.tasks.base.inference.FileInferencer`. A folder stands for all files
    of the task's kinds in it, at any depth, and a pattern such as ``'photos/**/*.jpg'``
    for its files.

    Args:
        config (str | Path | Config): The config of the training: a file, a config, or a
            name of :func:`lm4ve.apis.list_models`.
        checkpoint (str | Path, optional): Its checkpoint. 'pretrained': the weights
            that come with lm4ve for its demos. None: random weights, with a warning.
        inputs (str | Path | np.ndarray | Sequence): One or several; arrays for images
            only, uint8 ``[H, W, 3]``, BGR.
        show (bool): Show pictures in a window.
        out_dir (str | Path, optional): Write a picture (a video of a video) of each
            input here.
        batch_size (int): How many inputs are computed at a time.
        device (str, optional): Default: a GPU if there is one.
        progress (bool): Show a bar.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        **options: Inputs of a task beside its files: ``question=`` or ``caption=`` (VQA
            and retrieval), ``question=`` and ``situation=`` (rooms), ``map_dir=``
            (Argoverse 1).

    Returns:
        list[dict]: The prediction for each input, as plain data: ``pred_label``,
        ``pred_score``, ``pred_scores`` and ``pred_class`` of a classifier;
        ``trajectories`` and ``probabilities`` of a forecaster; ``pred_answer`` and
        ``answers`` to a question; ``captions`` or ``images`` ranked for a caption.

    Raises:
        UserError: An input is missing, unreadable, or of another task, or the task has
            no such option.
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another
            model.
    """
    cfg = loaded(config)
    check('batch_size', batch_size, least=1)
    with in_scope_of(cfg):
        task = task_of_config(cfg)
        inferencer: Any = pkgutil.resolve_name(task.inferencer)
        run = inferencer(
            cfg,
            checkpoint,
            device=device,
            allow_partial=allow_partial,
            show_progress=progress,
        )
        files = expand_inputs(inputs, task.input_suffixes)
        return run(files, batch_size=batch_size, show=show, out_dir=out_dir, **options)


def expand_inputs(inputs: Any, suffixes: Collection[str]) -> list[Any]:
    """Replace folders and patterns among inputs by their files, sorted.

    A folder or pattern without such files stays as it is: a folder of frames is a video
    itself, and the inferencer refuses a name without a file.

    Args:
        inputs: One or several files, folders, patterns or arrays.
        suffixes (Collection[str]): The endings of the files that count in a folder, in
            lower case, such as '.jpg'.
    """
    if isinstance(inputs, (str, Path, np.ndarray)):
        inputs = [inputs]
    expanded: list[Any] = []
    for item in inputs:
        files: list[Path] = []
        if not isinstance(item, np.ndarray):
            files = _files_of(item, suffixes)
        if files:
            expanded += files
        else:
            expanded.append(item)
    return expanded


def _files_of(item: str | Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files that a folder or a pattern stands for, sorted; [] for a file.

    Args:
        item (str | Path): A path, or a pattern of :mod:`glob`.
        suffixes (Collection[str]): The endings of the files that count in a folder;
            hidden ones do not.
    """
    path = Path(item)
    if path.is_dir():
        files = []
        for file in path.rglob('[!.]*'):
            if file.suffix.lower() in suffixes:
                files.append(file)
        return sorted(files)
    if path.exists():
        return []
    return sorted(Path(file) for file in glob.glob(str(item), recursive=True))
