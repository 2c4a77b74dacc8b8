"""The hooks that a task implements for the export of its models, and their defaults.

The export itself (:mod:`lm4ve.release`) depends on no task. :class:`TaskExport` suits
any model of MMEngine that takes one tensor a sample and gives tensors in the mode
'tensor'. A task with other inputs or outputs has an ``EXPORT`` of its own in
``lm4ve/tasks/<task>/export.py``.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor, nn

from lm4ve.tasks.base.analysis import tested_loader, tested_pipeline
from lm4ve.tasks.base.task import Task


class TaskExport:
    """Inputs, outputs and samples of a task's exported models.

    An exported function takes the tensors that the model's preprocessor takes, such as
    pixels before their normalization, which becomes a part of the function.

    Args:
        task (Task): The declaration.

    Attributes:
        inputs, outputs (Mapping[str, str]): Name of each tensor -> its meaning, which
            the file carries.
        axes (Mapping[str, Mapping[int, str]]): For each input the dimensions that may
            vary, with a name for each; equal names are equal sizes. Dimension 0 of
            every input varies as 'batch' and need not be listed.
    """

    inputs: Mapping[str, str] = {
        'inputs': 'what the data set gives, before the preprocessor'
    }
    outputs: Mapping[str, str] = {'outputs': "the model's output in the mode 'tensor'"}
    axes: Mapping[str, Mapping[int, str]] = {}

    def __init__(self, task: Task) -> None:
        self.task = task

    def prepare(self, model: nn.Module) -> None:
        """Change a model in place before its export, such as how a test splits views.

        By default nothing is changed.
        """

    def limits(self, model: nn.Module) -> Mapping[str, int]:
        """Return the largest sizes of varying dimensions, by name; by default, none is limited."""
        return {}

    def samples(
        self, cfg: Config, count: int, pipeline: list[dict] | None = None
    ) -> list[dict]:
        """Return samples to trace and to check with, as the tested data set gives them.

        By default its first ones. Where a file can be made up, no data are needed.

        Args:
            cfg (Config): The config.
            count (int): How many.
            pipeline (list[dict], optional): Transforms of made-up files; default: the
                test's.
        """
        dataset = DATASETS.build(tested_loader(cfg).dataset)
        # A small data set is repeated.
        return [dataset[number % len(dataset)] for number in range(count)]

    def tensors(self, model: nn.Module, data: Any) -> tuple[Tensor, ...]:
        """Return the function's inputs for a batch of the data loader, one for each name.

        Args:
            model (nn.Module): Gives its preprocessor, for example for the tokenizer.
            data (dict): The batch, before the preprocessor.
        """
        inputs = data['inputs']
        if not isinstance(inputs, Tensor):
            inputs = torch.stack(list(inputs))
        return (inputs,)

    def forward(self, model: Any, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute what is exported, from the tensors that :meth:`tensors` gives."""
        data = model.data_preprocessor(dict(inputs=tensors[0], data_samples=None))
        return model(data['inputs'], mode='tensor')

    def expected(self, model: Any, data: Any) -> Tensor | tuple[Tensor, ...]:
        """Compute the outputs of a batch of the data loader in the way of the model's tests.

        The exported file is compared with them, so this should share as little as
        possible with :meth:`forward`.
        """
        data = model.data_preprocessor(data, False)
        return model(**data, mode='tensor')

    def meaning(self, model: nn.Module, cfg: Config) -> dict[str, Any]:
        """Return further metadata for a user of the file, in plain data."""
        return normalization_of(model)

    def all_axes(self) -> list[dict[int, str]]:
        """Return the varying dimensions of each input, in the order of their names."""
        return [{0: 'batch', **self.axes.get(name, {})} for name in self.inputs]


class Exported(nn.Module):
    """A model as a function of tensors.

    Args:
        export (TaskExport): The task's hooks.
        model (nn.Module): The model, in evaluation mode.
    """

    def __init__(self, export: TaskExport, model: nn.Module) -> None:
        super().__init__()
        self.export = export
        self.model = model

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, one for each name of :attr:`TaskExport.outputs`."""
        return as_tuple(self.export.forward(self.model, *tensors))


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return one output or several as a tuple."""
    if isinstance(outputs, Tensor):
        return (outputs,)
    return tuple(outputs)


# --------------------------------------------------------------- for several tasks
def normalization_of(model: nn.Module) -> dict[str, Any]:
    """Describe how a preprocessor normalizes pixels; empty if it does not."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    if not isinstance(getattr(preprocessor, 'mean', None), Tensor):
        return {}
    if getattr(preprocessor, 'to_rgb', False):
        channels = 'BGR; they are turned to RGB inside'
    else:
        channels = 'as the model was trained'
    described: dict[str, Any] = dict(
        where='inside the function: give pixels from 0 to 255', channels=channels
    )
    for name in ('mean', 'std'):
        values = getattr(preprocessor, name).flatten().tolist()
        described[name] = [round(value, 4) for value in values]
    return dict(normalization=described)


def array_samples(
    task: Task,
    cfg: Config,
    contents: Sequence[np.ndarray],
    suffix: str,
    options: Sequence[Mapping[str, Any]] = (),
    pipeline: Sequence[dict] | None = None,
) -> list[dict]:
    """Write arrays as files and send these through the config's test pipeline, or another one.

    Args:
        task (Task): Its analysis reads the files.
        cfg (Config): The config.
        contents (Sequence[np.ndarray]): A file each: pixels for '.png', points for
            '.npy'.
        suffix (str): The files' ending.
        options (Sequence[Mapping], optional): The task's input options, one a file.
        pipeline (Sequence[dict], optional): The transforms; default: the test's.
    """
    if pipeline is None:
        pipeline = tested_pipeline(cfg)
    if not options:
        options = [{}] * len(contents)
    samples: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for content, file_options in zip(contents, options, strict=True):
            path = Path(folder, f'{len(samples)}{suffix}')
            _write_array(path, content)
            # Copies, which read_input may change.
            transforms = [dict(transform) for transform in pipeline]
            sample = task.analysis.read_input(cfg, path, transforms, **file_options)
            samples.append(sample)
    return samples


def _write_array(path: Path, content: np.ndarray) -> None:
    """Write points to a ``.npy`` file, or pixels to an image file."""
    if path.suffix == '.npy':
        np.save(path, content)
        return
    import cv2

    cv2.imwrite(str(path), content)


def made_up_pictures(
    count: int, height: int = 240, width: int = 320
) -> list[np.ndarray]:
    """Return pictures of waves, uint8 ``[H, W, 3]``, different in each picture and channel.

    Models see structure in them, as in photographs, and not the noise of random pixels.
    The waves get shorter from picture to picture; beyond some twenty pictures of the
    default size they are shorter than two pixels.
    """
    y, x = np.mgrid[:height, :width] / height
    # How far each pixel lies along the slanted direction in which the waves run.
    distance = (y + 0.7 * x)[None, :, :, None]
    # Each channel of each picture has its own number: the phase of its wave and, times
    # 9, the frequency.
    numbers = np.arange(3 * count).reshape(count, 1, 1, 3) * 1.3 + 1
    waves = np.sin(9 * numbers * distance + numbers)
    pixels = (127.5 + 127.4 * waves).astype(np.uint8)
    return list(pixels)
