"""The protocol of a task: what the rest of the package asks of it, and what suits most.

A task is read, made up, described, drawn, placed and exported through one object,
``PROTOCOL`` in ``lm4ve/tasks/<task>/task.py``, or a plain :class:`TaskProtocol` where a
task has no such module. A task writes the methods in which it differs. Nothing here
imports matplotlib, so that measuring needs no drawing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor, nn

from lm4ve.draw.pictures import Picture
from lm4ve.errors import UserError
from lm4ve.tasks.base.building import collate
from lm4ve.tasks.base.describing import (
    describe_prediction,
    name_of_sample,
    normalization_of,
    plain_prediction,
)
from lm4ve.tasks.base.layouts import Layout, Row, Watched
from lm4ve.tasks.base.task import Task
from lm4ve.tasks.base.tested import tested_loader


class TaskProtocol:
    """How the samples and the models of a task are read, made up, described and placed.

    Args:
        task (Task): The declaration, whose name the layouts carry.

    Attributes:
        inputs, outputs (Mapping[str, str]): Of an exported function: name of each tensor
            -> its meaning, which the file carries.
        axes (Mapping[str, Mapping[int, str]]): For each of these inputs the dimensions
            that may vary, with a name for each; equal names are equal sizes. Dimension 0
            of every input varies as 'batch' and need not be listed.
    """

    inputs: Mapping[str, str] = {
        'inputs': 'what the data set gives, before the preprocessor'
    }
    outputs: Mapping[str, str] = {'outputs': "the model's output in the mode 'tensor'"}
    axes: Mapping[str, Mapping[int, str]] = {}

    def __init__(self, task: Task) -> None:
        self.task = task

    # ------------------------------------------------------------------------ samples
    def read(
        self,
        source: Path | np.ndarray,
        cfg: Config,
        pipeline: list[dict],
        **options: Any,
    ) -> dict:
        """Send a user's input through a pipeline of the config.

        Args:
            source (Path | np.ndarray): A file (or folder) of a kind that the task
                declares, or an array where the task reads these.
            cfg (Config): The config.
            pipeline (list[dict]): The transforms, of
                :func:`lm4ve.tasks.base.tested.pipeline_of`. They are copies, which may be
                changed where the pipeline begins with something else than a file.
            **options: The task's ``input_options`` that were given.

        Returns:
            dict: The sample, as the data set gives one.

        Raises:
            UserError: The source cannot be read or does not fit the config.
        """
        raise UserError(
            f'{self.task.package} reads no files; --indices shows samples of the test set.'
        )

    def example(self, cfg: Config, number: int = 0, training: bool = False) -> dict:
        """Return a sample of full size, for export, the cost of a step and benchmarks.

        By default one of the tested data set. A task whose samples can be made up needs
        no data here.

        Args:
            cfg (Config): The config.
            number (int): Which one; they differ, and the first is the largest.
            training (bool): Whether a made-up sample goes through the pipeline of the
                training, and has what a loss needs.
        """
        dataset = DATASETS.build(tested_loader(cfg).dataset)
        # A small data set is repeated.
        sample: dict = dataset[number % len(dataset)]
        return sample

    def batch(self, cfg: Config, count: int, training: bool) -> Any:
        """Return a batch of equal samples as the data loader gives it, not preprocessed.

        Args:
            cfg (Config): The config.
            count (int): How many samples.
            training (bool): See :meth:`example`.
        """
        return collate(cfg, [self.example(cfg, training=training)] * count)

    def imagine(self, model: Any) -> None:
        """Change a model's config so that building it needs no files but checkpoints.

        A task whose models read other files, such as lists of answers, puts made-up values
        in their place. By default there are none.

        Args:
            model (ConfigDict): The model's config, changed in place.
        """

    def runnable(self, data: Any) -> Any:
        """Return a batch of the data loader in the form that the model's ``test_step`` takes.

        By default that is the batch itself.
        """
        return data

    # -------------------------------------------------------------- words and pictures
    def describe(
        self, output: Any, classes: Sequence[str] | None, evaluator: Any
    ) -> dict[str, str]:
        """Describe a model's prediction of a sample, the truth, and how good it is.

        By default: see :func:`lm4ve.tasks.base.describing.describe_prediction`. A task
        that says a number asks the metric that tests ask, so that a picture and a test
        agree.

        Args:
            output (Any): The prediction.
            classes (Sequence[str], optional): Names of the labels.
            evaluator (dict | list, optional): The config's ``test_evaluator``, or the
                ``val_evaluator`` for a sample of the validation.
        """
        return describe_prediction(output, classes)

    def result(self, output: Any, classes: Sequence[str] | None) -> dict[str, Any]:
        """Return a prediction as plain data, in the words of the hosts' inferencers.

        By default: see :func:`lm4ve.tasks.base.describing.plain_prediction`.
        """
        return plain_prediction(output, classes)

    def sample_name(self, output: Any, number: int) -> str:
        """Name a sample for file names, by its number and its file.

        Args:
            output (Any): A data sample or a prediction.
            number (int): Its number, for a sample without ``sample_idx``.
        """
        return name_of_sample(output, number)

    def pictures(
        self, model: nn.Module, inputs: Any, outputs: Sequence[Any], frames: int
    ) -> Sequence[Picture]:
        """Return one picture a sample.

        Args:
            model (nn.Module): Gives its preprocessor or encoder.
            inputs (Tensor | dict): The preprocessed batch.
            outputs (Sequence): The model's predictions, one a sample.
            frames (int): As :meth:`frames_shown` returned it.
        """
        return [Picture() for _ in outputs]

    def frames_shown(self, inputs: Any, layouts: Sequence[Layout]) -> int:
        """Return how many frames of a sample are drawn; 0 where its inputs are no frames.

        Args:
            inputs (Tensor | dict): The preprocessed batch. Frames that a model takes one
                by one are ``[B, V, 3, H, W]``.
            layouts (Sequence[Layout]): The places of the tokens that are shown.
        """
        return 0

    # ---------------------------------------------------------- where the tokens lie
    def layout(
        self,
        name: str,
        model: nn.Module,
        inputs: Any,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of a module's ``count`` tokens; by default in their grid or in a row.

        Args:
            name (str): The module's name, by which models with several kinds of tokens
                tell them apart.
            model (nn.Module): The model that they come from.
            inputs (Tensor | dict): The preprocessed batch.
            count (int): N, prefix included.
            grid (tuple[int, ...], optional): The shape of the map that they were
                flattened from, where they were one.

        Raises:
            UserError: So many tokens have no place in the inputs.
        """
        if not grid:
            # In a row.
            grid = (count,)
        return Layout(self.task.name, 0, grid).fitting(count)

    def further_points(self, model: nn.Module) -> dict[str, str]:
        """Return default points beside those of the neck, label to module name.

        A label of the neck's own points wins.
        """
        return {}

    def watched(self, model: nn.Module) -> list[Watched]:
        """Return attentions to show beside the encoder's and the block's."""
        return []

    def attention_row(self, layout: Layout, inputs: Any) -> tuple[Row, str]:
        """Return which query of an attention is of interest, and what it is called.

        By default: the class token where there is one, else the mean over all queries.
        """
        if layout.prefix > 0:
            return 0, 'class token'
        return None, 'mean over tokens'

    # ------------------------------------------------------- the model as a function
    # An exported function takes the tensors that the model's preprocessor takes, such as
    # pixels before their normalization, which becomes a part of the function.
    def prepare(self, model: nn.Module) -> None:
        """Change a model in place before its export, such as how a test splits views.

        By default nothing is changed.
        """

    def limits(self, model: nn.Module) -> Mapping[str, int]:
        """Return the largest sizes of varying dimensions, by name; by default, none is limited."""
        return {}

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
