"""Builds what inference needs from a config: the model with its checkpoint, samples and batches.

A checkpoint that does not fit is an error, as in ``lm4ve test``, and nothing of it is
executed. Files go through the config's own test pipeline, which
:mod:`lm4ve.tasks.base.analysis` changes only where it begins with something else than a
file.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import DATASETS, FUNCTIONS, MODELS, Registry
from torch import nn

from lm4ve.draw.file_names import safe_name
from lm4ve.errors import UserError, check
from lm4ve.necks.fusing import fuse
from lm4ve.runner import checkpoint_files as files
from lm4ve.runner.devices import find_device
from lm4ve.tasks.base.analysis import tested_dataset
from lm4ve.tasks.base.task import Task, task_of_config
from lm4ve.zoo import find_checkpoint


def build_model(
    cfg: Config, checkpoint: str | Path | None = None, allow_partial: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Build a model, on the CPU and in training mode.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
        checkpoint (str | Path, optional): Default: nothing is loaded. 'pretrained': the
            weights that come with the config (:func:`lm4ve.zoo.find_checkpoint`).
        allow_partial (bool): Load what fits of a checkpoint of another model.

    Returns:
        tuple[nn.Module, dict]: The model and the checkpoint's content, empty without
        one.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or of another model.
    """
    settings = cfg.model
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    checkpoint = find_checkpoint(checkpoint, cfg.filename)
    content = {} if checkpoint is None else files.read_checkpoint(checkpoint)
    model: nn.Module = MODELS.build(settings)
    if checkpoint is not None:
        origin = f"'{checkpoint}'"
        load = files.load_partly if allow_partial else files.load_strictly
        load(model, files.select_state(content, origin=origin), origin)
    return model, content


def inference_model(
    cfg: Config, checkpoint: str | Path | None, device: str | None, allow_partial: bool
) -> tuple[nn.Module, Sequence[str] | None]:
    """Build a fused model for inference (:func:`lm4ve.fuse`), which warns without a checkpoint.

    Returns:
        tuple[nn.Module, Sequence[str] | None]: The model on its device in evaluation
        mode, and its classes (:func:`classes_of`).
    """
    place = find_device(device)
    model, content = build_model(cfg, checkpoint, allow_partial)
    if checkpoint is None:
        text = 'No checkpoint: the model is untrained, and its results are meaningless.'
        print_log(text, logger='current', level=logging.WARNING)
    return fuse(model.to(place)), classes_of(cfg, content)


def classes_of(cfg: Config, checkpoint: dict[str, Any]) -> Sequence[str] | None:
    """Return the class names in the order of the labels, from config, checkpoint or data set.

    Args:
        cfg (Config): The config.
        checkpoint (dict): The content that :func:`build_model` returned.
    """
    dataset = tested_dataset(cfg)
    sources = (
        dataset.get('metainfo'),
        files.meta_of(checkpoint, 'dataset_meta'),
        getattr(_registered(DATASETS, dataset.type), 'METAINFO', None),
    )
    return next((s['classes'] for s in sources if s and s.get('classes')), None)


def _registered(registry: Registry, name: str | type[Any]) -> Any:
    """Return the object of a config's ``type``; ``get`` alone does not search the scope."""
    if not isinstance(name, str):
        return name
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name)


# ------------------------------------------------------------------ samples and batches
class Sample(NamedTuple):
    """One sample: its name and the output of the pipeline."""

    name: str
    data: dict[str, Any]


def collate(cfg: Config, samples: Sequence[dict[str, Any]]) -> Any:
    """Make a batch as the config's test data loader does."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    options = dict(loader.get('collate_fn') or {})
    kind = options.pop('type', 'default_collate')
    if kind == 'default_collate':
        # Lists: pictures may differ in size.
        return pseudo_collate(list(samples))
    return _registered(FUNCTIONS, kind)(list(samples), **options)


#: A file, or an array for a task that reads arrays.
Input = str | Path | np.ndarray


def samples_of_files(
    cfg: Config, inputs: Sequence[Input], **options: Any
) -> list[Sample]:
    """Read files as the config's task needs them, all at once; see :func:`each_sample`."""
    return list(each_sample(cfg, inputs, **options))


def each_sample(
    cfg: Config, inputs: Sequence[Input], **options: Any
) -> Iterator[Sample]:
    """Check all files, then yield them one by one through the config's test pipeline.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
        inputs (Sequence[str | Path | np.ndarray]): Files of the kinds that the task
            declares, or images as arrays.
        **options: Some of :attr:`lm4ve.tasks.Task.input_options`, for example
            ``map_dir``; None counts as not given.

    Raises:
        UserError: A file is missing or of another kind, or the task has no such option.
    """
    pipeline, task = tested_dataset(cfg).pipeline, task_of_config(cfg)
    given = [x if isinstance(x, np.ndarray) else Path(x) for x in inputs]
    for path in given:
        if isinstance(path, Path):
            _check_file(path, task)
    options = {k: v for k, v in options.items() if v is not None}
    for name in options:
        check(f'An option of {task.input_noun}', name, choices=task.input_options)
    # Files of several folders may share a name.
    stems = [safe_name(x.stem) if isinstance(x, Path) else 'array' for x in given]
    names = [s if stems.count(s) == 1 else f'{i}_{s}' for i, s in enumerate(stems)]
    return (
        Sample(
            name,
            task.analysis.read_input(cfg, x, [dict(t) for t in pipeline], **options),
        )
        for name, x in zip(names, given, strict=True)
    )


def _check_file(path: Path, task: Task) -> None:
    """Refuse a file that does not exist, or that the task does not read."""
    if not path.exists():
        raise UserError(f"'{path}' does not exist.")
    if not (path.is_dir() and task.takes_folders):
        field = f"'{path}' does not fit: the config takes {task.input_noun}; its ending"
        check(field, path.suffix.lower(), choices=task.input_suffixes)
