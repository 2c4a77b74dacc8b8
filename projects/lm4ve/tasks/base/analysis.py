"""The hooks that a task implements for the analysis of activations, and their defaults.

The analysis itself (:mod:`lm4ve.analysis`) is the same for all tasks. How samples are
read, placed, drawn and described is up to the task: the object ``ANALYSIS`` in
``lm4ve/tasks/<task>/analysis.py``, or a plain :class:`TaskAnalysis` where a task has no
such module. Nothing here imports matplotlib, so that measuring needs no drawing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from lm4ve.draw.file_names import numbered
from lm4ve.draw.pictures import Picture
from lm4ve.errors import UserError, check
from lm4ve.runner.trained_config import innermost_dataset
from lm4ve.tasks.base.task import Task

#: Which query of an attention to show: its index, an index for each sample (int64
#: ``[B]``), or None for the mean over all queries that are not padding.
Row = int | Tensor | None


@dataclass(frozen=True)
class Layout:
    """The places of a model's tokens.

    Attributes:
        kind (str): The task's name.
        prefix (int): Tokens before the placed ones (class token).
        grid (tuple[int, ...]): (rows, columns) of an image, (times, rows,
            columns) of a clip, (groups, ) of a cloud, (agents + lanes, ) of a scene.
        padding_mask (Tensor, optional): Bool ``[B, N]`` of the placed tokens.
    """

    kind: str
    prefix: int
    grid: tuple[int, ...]
    padding_mask: Tensor | None = None

    @property
    def num_placed(self) -> int:
        """The number of tokens that have a place."""
        return math.prod(self.grid)

    @property
    def times(self) -> int:
        """The number of times on a clip's grid; else 1."""
        return self.grid[0] if len(self.grid) == 3 else 1

    def fitting(self, count: int) -> 'Layout':
        """Return this layout after a check that it fits a number of tokens.

        Args:
            count (int): The number of tokens, prefix included.

        Raises:
            UserError: It has places for another number of tokens.
        """
        if self.prefix < 0 or self.prefix + self.num_placed != count:
            raise UserError(
                f'{count} tokens do not fit {self.kind} with a grid of {self.grid}.'
            )
        return self


@dataclass(frozen=True)
class Rows:
    """Attention of several rows, each of which has a name.

    Attributes:
        weights (Tensor): ``[B, R, N]`` over all tokens of the layout, its prefix
            included; rows that a sample does not have are 0 and come last.
        titles (list[list[str]]): The names of each sample's rows, at most R.
        layout (Layout): The places of the N tokens.
    """

    weights: Tensor
    titles: list[list[str]]
    layout: Layout


@dataclass(frozen=True)
class Watched:
    """An attention of one task alone, such as one from words to an image.

    Attributes:
        label (str): Its name on a sheet.
        module (str): The name of the module that computes it.
        read (Callable): ``(module, inputs, arguments) -> Rows``: from the module, the
            preprocessed batch and what the module was called with, by name.
        row (str): Whose attention it is, or what was done with heads.
    """

    label: str
    module: str
    read: Callable[[nn.Module, Any, Mapping[str, Any]], Rows]
    row: str = 'mean over heads'


class TaskAnalysis:
    """How the samples of a task are read, placed, drawn and described.

    By default, tokens stand in their grid or in a row, without a picture of the input.

    Args:
        task (Task): The declaration, whose name the layouts carry.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def read_input(
        self, cfg: Config, path: Path, pipeline: list[dict], **options: Any
    ) -> dict:
        """Send a file through the config's test pipeline.

        Args:
            cfg (Config): The config.
            path (Path): A file (or folder) of a kind that the task declares.
            pipeline (list[dict]): The pipeline's transforms, copies that may be
                changed where the pipeline begins with something else than a file.
            **options: The task's ``input_options`` that were given.

        Returns:
            dict: The sample, as the test data set gives one.

        Raises:
            UserError: The file cannot be read or does not fit the config.
        """
        raise UserError(
            f'{self.task.package}.analysis reads no files; --indices shows samples of the test set.'
        )

    def layout(
        self,
        model: nn.Module,
        inputs: Any,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of ``count`` tokens.

        Args:
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

    def layout_at(self, name: str, *args: Any) -> Layout:
        """Find the places of the tokens of the module called ``name``; see :meth:`layout`.

        The arguments are those of :meth:`layout`, which suffices where a model has
        tokens of one kind.
        """
        return self.layout(*args)

    def further_points(self, model: nn.Module) -> dict[str, str]:
        """Return default points beside those of the neck, label to module name.

        A label of the neck's own points wins.
        """
        return {}

    def watched(self, model: nn.Module) -> list[Watched]:
        """Return attentions to show beside the encoder's and the block's."""
        return []

    def runnable(self, data: Any) -> Any:
        """Return a batch of the data loader in the form that the model's ``test_step`` takes.

        By default that is the batch itself.
        """
        return data

    def frames_shown(self, inputs: Any, layouts: Sequence[Layout]) -> int:
        """Return how many frames of a sample are drawn; 0 where its inputs are no frames.

        Args:
            inputs (Tensor | dict): The preprocessed batch. Frames that a model takes one
                by one are ``[B, V, 3, H, W]``.
            layouts (Sequence[Layout]): The places of the tokens that are shown.
        """
        return 0

    def attention_row(self, layout: Layout, inputs: Any) -> tuple[Row, str]:
        """Return which query of an attention is of interest, and what it is called.

        By default: the class token where there is one, else the mean over all queries.
        """
        if layout.prefix > 0:
            return 0, 'class token'
        return None, 'mean over tokens'

    def facts(self, output: Any, classes: Sequence[str] | None) -> dict[str, str]:
        """Describe a model's prediction of a sample, and the truth.

        By default: the predicted class, its score, and the true class, where there are
        any; of a regression the predicted number, and the true one.
        """
        prediction = _number(output, 'pred_value')
        if prediction is None:
            prediction = _predicted_class(output, classes)
        truth = _number(output, 'gt_value')
        if truth is None:
            truth = _true_classes(output, classes)
        facts: dict[str, str] = {}
        if prediction is not None:
            facts['prediction'] = prediction
        if truth is not None:
            facts['truth'] = truth
        return facts

    def score(self, output: Any, evaluator: Any) -> dict[str, str]:
        """Say how good a prediction of a sample is, by the metric of the config.

        By default nothing is said. A task that says a number asks the metric that tests
        ask, so that a picture and a test agree.

        Args:
            output (Any): The prediction.
            evaluator (dict | list, optional): The config's ``test_evaluator``, or the
                ``val_evaluator`` for a sample of the validation.
        """
        return {}

    def result(self, output: Any, classes: Sequence[str] | None) -> dict[str, Any]:
        """Return a prediction as plain data, in the words of the hosts' inferencers.

        By default: ``pred_label``, ``pred_score`` (0 to 1), ``pred_scores`` and, if
        classes are known, ``pred_class``. Of a regression: ``pred_value``.
        """
        number = _field(output, 'pred_value')
        if number is not None:
            return dict(pred_value=number.item())
        label = int(output.get('pred_label'))
        result: dict[str, Any] = dict(pred_label=label)
        scores = _scores_of(output)
        if scores is not None:
            array = scores.detach().float().cpu().numpy()
            result['pred_score'] = float(array.max())
            result['pred_scores'] = array
        if classes:
            result['pred_class'] = classes[label]
        return result

    def sample_name(self, output: Any, number: int) -> str:
        """Name a sample for file names, by its number and its file.

        Args:
            output (Any): A data sample or a prediction.
            number (int): Its number, for a sample without ``sample_idx``.
        """
        index = _field(output, 'sample_idx')
        if index is not None:
            number = int(index)
        path = _field(output, 'img_path') or _field(output, 'filename')
        if not path:
            return numbered(number, None)
        return numbered(number, Path(str(path)).stem)


def tested_loader(cfg: Config) -> Any:
    """Return the settings of a config's test data loader (else validation's).

    Raises:
        UserError: It has neither.
    """
    loader = cfg.get('test_dataloader')
    if not loader:
        loader = cfg.get('val_dataloader')
    check('test_dataloader', loader, kind=dict)
    return loader


def tested_evaluator(cfg: Config) -> Any:
    """Return the settings of a config's test evaluator (else validation's), or None."""
    evaluator = cfg.get('test_evaluator')
    if not evaluator:
        evaluator = cfg.get('val_evaluator')
    return evaluator


def tested_dataset(cfg: Config) -> Any:
    """Return the settings of a config's test data set (else validation's)."""
    return innermost_dataset(tested_loader(cfg).dataset)


def tested_pipeline(cfg: Config) -> list[dict]:
    """Return the transforms of a config's test data set, through which files go.

    Raises:
        UserError: The data set has no ``pipeline``.
    """
    dataset = tested_dataset(cfg)
    if 'pipeline' not in dataset:
        raise UserError(
            f"test_dataloader.dataset (type='{dataset.type}') has no pipeline, through which "
            'files go. Fix: pipeline=[...] with its transforms, or pipeline=[] for none.'
        )
    pipeline: list[dict] = dataset.pipeline
    return pipeline


def tested_field(cfg: Config, name: str, default: Any) -> Any:
    """Return a field of a config's test data set; ``default`` where none has it."""
    if not (cfg.get('test_dataloader') or cfg.get('val_dataloader')):
        return default
    return tested_dataset(cfg).get(name, default)


def prefix_of(backbone: nn.Module, count: int) -> int:
    """Return how many of a backbone's ``count`` tokens come before the patches."""
    grid = getattr(backbone, 'patch_resolution', None)
    if grid is not None and math.prod(grid) == count:
        # These tokens are from before the class token joins, or from after it left.
        return 0
    num_extra_tokens = getattr(backbone, 'num_extra_tokens', None)
    if num_extra_tokens is not None:
        return int(num_extra_tokens)
    if getattr(backbone, 'cls_token', None) is not None:
        return 1
    return 0


def proportional_grid(placed: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of a grid with the picture's proportions."""
    rows = max(round(math.sqrt(placed * height / width)), 1)
    return rows, placed // rows


def _field(output: Any, name: str) -> Any:
    """Return a field of a data sample or dict, or None if it lacks the field.

    Outputs of other types, such as tensors, have no fields at all.
    """
    if not hasattr(output, 'get'):
        return None
    return output.get(name)


def _number(output: Any, name: str) -> str | None:
    """Return a field's number as text, or None if it has none, or several."""
    number = _field(output, name)
    if not isinstance(number, Tensor) or number.numel() != 1:
        return None
    return f'{number.item():.4g}'


def _predicted_class(output: Any, classes: Sequence[str] | None) -> str | None:
    """Return the name of the predicted class and its score, or None without a class."""
    label = _field(output, 'pred_label')
    if not isinstance(label, Tensor) or label.numel() != 1:
        return None
    name = _class_name(int(label), classes)
    scores = _scores_of(output)
    if scores is None:
        return name
    return f'{name} ({100 * float(scores.max()):.1f} %)'


def _true_classes(output: Any, classes: Sequence[str] | None) -> str | None:
    """Return the names of the true classes, or None where they are not known."""
    labels = _field(output, 'gt_label')
    if not isinstance(labels, Tensor) or labels.numel() == 0:
        return None
    # Labels below 0 mean that the class is not known.
    if (labels < 0).any():
        return None
    names = [_class_name(label, classes) for label in labels.flatten().tolist()]
    return ', '.join(names)


def _class_name(label: int, classes: Sequence[str] | None) -> str:
    """Return the name of a class, or 'class 7' where names are not known."""
    if classes and label < len(classes):
        return str(classes[label])
    return f'class {label}'


def _scores_of(output: Any) -> Tensor | None:
    """Return the scores of all classes, if there are any.

    The hosts call them ``pred_score``, our models ``pred_scores``.
    """
    scores = output.get('pred_scores')
    if scores is None:
        scores = output.get('pred_score')
    return scores
