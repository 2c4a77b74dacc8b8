"""One function that applies a trained model of any task to a user's files."""

import pkgutil
from pathlib import Path
from typing import Any

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
    strict_config: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """Predict for images, videos, point clouds, traffic scenes, or images with texts.

    The task's inferencer does it, by default
    :class:`lm4ve.tasks.base.inference.FileInferencer`. A folder stands for all files
    of the task's kinds in it, at any depth, and a pattern such as ``'photos/**/*.jpg'``
    for its files. Damaged ones among these are skipped, with a warning that names them.

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
        strict_config (bool): Raise an error, not a warning, if the checkpoint was trained
            with another model or preprocessing, or does not say so.
        **options: Inputs of a task beside its files: ``question=`` or ``caption=`` (VQA
            and retrieval), ``question=`` and ``situation=`` (rooms), ``map_dir=``
            (Argoverse 1).

    Returns:
        list[dict]: For each input that was read its path (``path``; ``img_path`` and
        ``room`` of questions) and the prediction as plain data: ``pred_label``,
        ``pred_score``, ``pred_scores`` and ``pred_class`` of a classifier;
        ``trajectories`` and ``probabilities`` of a forecaster; ``pred_answer`` and
        ``answers`` to a question; ``captions`` or ``images`` ranked for a caption.

    Raises:
        UserError: An input that is named itself is missing, unreadable, or of another
            task, no file of a folder can be read, or the task has no such option.
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
            strict_config=strict_config,
            show_progress=progress,
        )
        return run(inputs, batch_size=batch_size, show=show, out_dir=out_dir, **options)
