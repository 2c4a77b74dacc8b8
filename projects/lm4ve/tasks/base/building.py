"""Builds what inference needs from a config: the model with its checkpoint, samples and batches.

A checkpoint that does not fit is an error, as in ``lm4ve test``, and nothing of it is
executed. Files go through the config's own test pipeline, so that a prediction here
equals one of a test.
"""

import logging
from collections import Counter
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
from lm4ve.errors import check
from lm4ve.necks.fusing import fuse
from lm4ve.runner import checkpoint_files
from lm4ve.runner.devices import find_device
from lm4ve.runner.trained_config import Use, compare_with_training
from lm4ve.tasks.base.inputs import Input, Inputs, find_inputs
from lm4ve.tasks.base.task import Task, task_of_config
from lm4ve.tasks.base.tested import pipeline_of, tested_dataset
from lm4ve.zoo import find_checkpoint


def build_model(
    cfg: Config,
    checkpoint: str | Path | None = None,
    allow_partial: bool = False,
    strict_config: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Build a model, on the CPU and in training mode.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
        checkpoint (str | Path, optional): Default: nothing is loaded. 'pretrained': the
            weights that come with the config (:func:`lm4ve.zoo.find_checkpoint`).
        allow_partial (bool): Load what fits of a checkpoint of another model.
        strict_config (bool): Raise an error, not a warning, if the checkpoint was trained
            with another model or preprocessing, or does not say so.

    Returns:
        tuple[nn.Module, dict]: The model and the checkpoint's content, empty without
        one.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or of another model, or with
            ``strict_config`` was trained otherwise.
    """
    settings = cfg.model
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    checkpoint = find_checkpoint(checkpoint, cfg.filename)
    if checkpoint is None:
        return MODELS.build(settings), {}
    # Reading comes first: a damaged file is found before a large model is built.
    content = checkpoint_files.read_checkpoint(checkpoint)
    origin = f"'{checkpoint}'"
    compare_with_training(content, cfg, origin, Use.INFERENCE, strict_config)
    model = MODELS.build(settings)
    state = checkpoint_files.select_state(content, origin=origin)
    if allow_partial:
        checkpoint_files.load_partly(model, state, origin)
    else:
        checkpoint_files.load_strictly(model, state, origin)
    return model, content


def inference_model(
    cfg: Config,
    checkpoint: str | Path | None,
    device: str | None,
    allow_partial: bool,
    strict_config: bool = False,
) -> tuple[nn.Module, Sequence[str] | None]:
    """Build a fused model for inference (:func:`lm4ve.fuse`).

    Without a checkpoint the model is untrained, of which the log warns.

    Args:
        cfg (Config): The config.
        checkpoint (str | Path, optional): See :func:`build_model`.
        device (str, optional): Default: a GPU if there is one.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        strict_config (bool): Raise an error, not a warning, if the checkpoint was trained
            with another model or preprocessing, or does not say so.

    Returns:
        tuple[nn.Module, Sequence[str] | None]: The model on its device in evaluation
        mode, and its classes (:func:`classes_of`).
    """
    found_device = find_device(device)
    model, content = build_model(cfg, checkpoint, allow_partial, strict_config)
    if checkpoint is None:
        print_log(
            'No checkpoint: the model is untrained, and its results are meaningless.',
            logger='current',
            level=logging.WARNING,
        )
    model = fuse(model.to(found_device))
    return model, classes_of(cfg, content)


def classes_of(cfg: Config, checkpoint: dict[str, Any]) -> Sequence[str] | None:
    """Return the class names in the order of the labels; None where nothing names them.

    They come from the first of these that has any: the config of the test data set, the
    checkpoint, the class of the data set.

    Args:
        cfg (Config): The config.
        checkpoint (dict): The content that :func:`build_model` returned.
    """
    dataset = tested_dataset(cfg)
    dataset_class = _registered(DATASETS, dataset.type)
    sources = (
        dataset.get('metainfo'),
        checkpoint_files.meta_of(checkpoint, 'dataset_meta'),
        getattr(dataset_class, 'METAINFO', None),
    )
    for metainfo in sources:
        if metainfo and metainfo.get('classes'):
            return metainfo['classes']
    return None


def _registered(registry: Registry, name: str | type[Any]) -> Any:
    """Return the class or function that a config's ``type`` stands for.

    Args:
        registry (Registry): Where names are looked up.
        name (str | type): A registered name, or the class itself.
    """
    if not isinstance(name, str):
        return name
    # ``registry.get`` alone does not search the scope of the config; None stands for the
    # scope in use, which is the config's.
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name)


# ------------------------------------------------------------------ samples and batches
class NamedSample(NamedTuple):
    """The name of a sample, what the pipeline made of it, and its file if it is of one."""

    name: str
    data: dict[str, Any]
    path: str | None = None


def collate(cfg: Config, samples: Sequence[dict[str, Any]]) -> Any:
    """Join samples to a batch with the collate function of the config's test data loader.

    Without a test data loader, validation's counts.
    """
    options: dict[str, Any] = {}
    for name in ('test_dataloader', 'val_dataloader'):
        if cfg.get(name):
            options.update(cfg[name].get('collate_fn') or {})
            break
    function_name = options.pop('type', 'default_collate')
    if function_name == 'default_collate':
        # MMEngine's default stacks tensors; lists allow pictures of several sizes.
        return pseudo_collate(list(samples))
    function = _registered(FUNCTIONS, function_name)
    return function(list(samples), **options)


def samples_of_files(
    cfg: Config, inputs: Input | Sequence[Input], **options: Any
) -> list[NamedSample]:
    """Read files as the config's task needs them, all at once; see :func:`each_sample`."""
    task = task_of_config(cfg)
    return list(each_sample(cfg, find_inputs(inputs, task), **options))


def each_sample(cfg: Config, inputs: Inputs, **options: Any) -> Iterator[NamedSample]:
    """Yield files or arrays one by one through the config's test pipeline.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
        inputs (Inputs): From :func:`lm4ve.tasks.base.inputs.find_inputs`. Damaged files
            that were found in a folder or by a pattern are skipped.
        **options: Some of :attr:`lm4ve.tasks.Task.input_options`, for example
            ``map_dir``; None counts as not given.

    Raises:
        UserError: A file cannot be read, or the task has no such option.
    """
    task = task_of_config(cfg)
    given_options = {}
    for option, value in options.items():
        if value is None:
            continue
        check(f'An option of {task.input_noun}', option, choices=task.input_options)
        given_options[option] = value
    return _read_each(cfg, task, inputs, given_options)


def _read_each(
    cfg: Config, task: Task, inputs: Inputs, options: dict[str, Any]
) -> Iterator[NamedSample]:
    """Send files or arrays through the test pipeline, one by one.

    Args:
        cfg (Config): Has the pipeline.
        task (Task): Its protocol reads the sources.
        inputs (Inputs): The files or arrays.
        options (dict): Those of the task's ``input_options`` that were given.
    """
    if not inputs.sources:
        return

    def read(source: Path | np.ndarray) -> dict[str, Any]:
        data: dict[str, Any] = task.protocol.read(
            source, cfg, pipeline_of(cfg), **options
        )
        return data

    names = _names_of(inputs.sources)
    for place, data in inputs.read_each(read):
        source = inputs.sources[place]
        path = str(source) if isinstance(source, Path) else None
        yield NamedSample(names[place], data, path)


def _names_of(sources: Sequence[Path | np.ndarray]) -> list[str]:
    """Return a name for each source: its file's without ending, or 'array'.

    Where sources share a name, as files of several folders may, their number comes first.
    No two names are equal, so that no picture takes another's place.
    """
    stems = []
    for source in sources:
        if isinstance(source, Path):
            stems.append(safe_name(source.stem))
        else:
            stems.append('array')
    # Some file systems take capitals for small letters.
    counts = Counter(stem.casefold() for stem in stems)
    names = []
    numbered_names = []
    for number, stem in enumerate(stems):
        numbered_name = f'{number}_{stem}'
        numbered_names.append(numbered_name)
        is_shared = counts[stem.casefold()] > 1
        names.append(numbered_name if is_shared else stem)
    if len({name.casefold() for name in names}) < len(names):
        # A file is called as if it had a number.
        return numbered_names
    return names
