"""Results of each class after a test: a table, the confusion matrix, and its picture.

MMEngine writes lists and matrices to the log as they are, without the classes' names.
Metrics of mmpretrain and mmaction2 compute both: ``ConfusionMatrix``, and
``SingleLabelMetric`` with ``average=None``.
"""

import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lm4ve.runner.console import SHOWN, WIDTH
from lm4ve.runner.rich_console import Console
from lm4ve.runner.tables import print_table

#: The end of the name of a metric that is a list with a number for each class.
_CLASSWISE = '_classwise'
#: Of more classes, the table has the weakest, and the picture no names.
MOST_CLASSES = 50
#: How many confusions are listed where the matrix is too wide for the console.
MOST_CONFUSIONS = 15
#: How many classes a picture has at most for numbers in its fields.
_MOST_NUMBERS = 30
#: Letters of a class's name beside the matrix.
_NAME_WIDTH = 24


class PerClassHook(Hook):  # type: ignore[misc]
    """Print and draw the results of each class after a test, if its metrics have them."""

    # After the line with the scores of the test.
    priority = 'LOWEST'

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        """Print the tables, and save the picture beside the log file."""
        metrics = metrics or {}
        matrix = find_matrix(metrics)
        columns = columns_of(metrics, matrix)
        if not columns:
            return
        count = len(next(iter(columns.values())))
        names = _class_names(runner, count)
        runner.logger.info(class_table(names, columns), extra=SHOWN)
        if matrix is None:
            return
        runner.logger.info(matrix_table(names, matrix), extra=SHOWN)
        plot = _find_plot(runner)
        if plot is not None and is_main_process():
            path = Path(runner.log_dir) / 'confusion_matrix.png'
            draw_matrix(plot, matrix, names, path)
            runner.logger.info(f'{"picture":12} {path}', extra=SHOWN)


def find_matrix(metrics: dict[str, Any]) -> np.ndarray | None:
    """Return the confusion matrix among the metrics, or None.

    Returns:
        np.ndarray: ``[C, C]``, the numbers of samples; a row for each true class, a
        column for each predicted one.
    """
    for value in metrics.values():
        shape = tuple(getattr(value, 'shape', ()))
        if len(shape) == 2 and shape[0] == shape[1]:
            return np.asarray(value)
    return None


def columns_of(
    metrics: dict[str, Any], matrix: np.ndarray | None
) -> dict[str, list[float]]:
    """Return the columns of the table of classes, each with a number for each class.

    Args:
        metrics (dict): Of the test.
        matrix (np.ndarray, optional): The confusion matrix ``[C, C]``. It gives the
            number of samples, recall and precision, in percent. A single metric with
            such a list has the same numbers, and is left out.

    Returns:
        dict[str, list[float]]: Named by the last part of the metric's name, or by more
        of it where metrics share that part, as 'a/f1-score' and 'b/f1-score'. Empty if
        the metrics have nothing about classes. NaN stands for the recall of a class
        without samples, and for the precision of one that was never predicted.
    """
    columns: dict[str, list[float]] = {}
    if matrix is not None:
        right = np.diagonal(matrix)
        columns['samples'] = matrix.sum(axis=1).tolist()
        columns['recall'] = _percent(right, matrix.sum(axis=1))
        columns['precision'] = _percent(right, matrix.sum(axis=0))
    lists = {}
    for name, values in metrics.items():
        if name.endswith(_CLASSWISE):
            lists[name.removesuffix(_CLASSWISE)] = list(values)
    for name, values in lists.items():
        column = _shorten(name, lists)
        if column not in columns:
            columns[column] = values
    return columns


def _shorten(name: str, names: Collection[str]) -> str:
    """Return the shortest end of a metric's name that is the end of no other one.

    Args:
        name (str): Parts with slashes between them, as in 'single-label/f1-score'.
        names (Collection[str]): All names.
    """
    parts = name.split('/')
    for count in range(1, len(parts)):
        end = '/'.join(parts[-count:])
        others = [other for other in names if other == end or other.endswith(f'/{end}')]
        if others == [name]:
            return end
    return name


def _percent(parts: np.ndarray, wholes: np.ndarray) -> list[float]:
    """Return each part as a percentage of its whole, or NaN where that is zero."""
    is_there = wholes > 0
    percentages: list[float] = np.where(
        is_there, 100 * parts / np.where(is_there, wholes, 1), np.nan
    ).tolist()
    return percentages


def class_table(names: Sequence[str], columns: dict[str, list[float]]) -> str:
    """Return a table with a row for each class, or for the weakest of many.

    Args:
        names (Sequence[str]): Of the classes.
        columns (dict[str, list[float]]): See :func:`columns_of`.
    """
    shown = list(range(len(names)))
    title = 'each class'
    weakness = columns.get('recall') or next(iter(columns.values()))
    if len(names) > MOST_CLASSES:
        # NaN comes last.
        shown = np.argsort(weakness, kind='stable')[:MOST_CLASSES].tolist()
        title = f'the weakest {MOST_CLASSES} of {len(names)} classes'
    rows = []
    for i in shown:
        row = {'class': names[i]}
        for column, values in columns.items():
            row[column] = _format(values[i])
        rows.append(row)
    return _render(title, rows)


def _format(value: float) -> str:
    """Return a count as it is, another number with two digits, and '-' for NaN."""
    if value != value:
        return '-'
    if isinstance(value, int):
        return str(value)
    return f'{value:.2f}'


def matrix_table(names: Sequence[str], matrix: np.ndarray) -> str:
    """Return the confusion matrix as a table, or its largest fields if it is too wide.

    Args:
        names (Sequence[str]): Of the classes.
        matrix (np.ndarray): See :func:`find_matrix`.
    """
    if len(names) > WIDTH:
        return confusion_table(names, matrix)
    rows = []
    for i, name in enumerate(names):
        row = {'true, predicted': f'{i} {name[:_NAME_WIDTH]}'}
        for j, count in enumerate(matrix[i]):
            row[str(j)] = str(count) if count else '.'
        rows.append(row)
    text = _render('confusion matrix', rows)
    if max(len(line) for line in text.splitlines()) > WIDTH:
        return confusion_table(names, matrix)
    return text


def confusion_table(names: Sequence[str], matrix: np.ndarray) -> str:
    """Return a table of the largest confusions of one class with another.

    Args:
        names (Sequence[str]): Of the classes.
        matrix (np.ndarray): See :func:`find_matrix`.
    """
    confused = matrix.copy()
    np.fill_diagonal(confused, 0)
    samples = matrix.sum(axis=1)
    order = np.argsort(-confused, axis=None, kind='stable')
    rows = []
    for place in order[:MOST_CONFUSIONS].tolist():
        true, predicted = divmod(place, len(names))
        count = confused[true, predicted]
        if count == 0:
            break
        row = {
            'true': names[true],
            'predicted': names[predicted],
            'samples': str(count),
            '% of the class': f'{100 * count / samples[true]:.1f}',
        }
        rows.append(row)
    if not rows:
        return 'no confusion: each sample is predicted right'
    return _render('the largest confusions', rows, texts=['predicted'])


def draw_matrix(
    plot: Callable[..., Any], matrix: np.ndarray, names: Sequence[str], path: Path
) -> None:
    """Save a picture of the confusion matrix.

    Args:
        plot (Callable): ``ConfusionMatrix.plot`` of mmpretrain or mmaction2.
        matrix (np.ndarray): See :func:`find_matrix`.
        names (Sequence[str]): Of the classes.
        path (Path): Of the picture.
    """
    # Slow to import, and only a test needs it.
    from matplotlib import pyplot

    figure = plot(
        torch.as_tensor(matrix),
        include_values=len(names) <= _MOST_NUMBERS,
        classes=list(names),
        show=False,
    )
    # The hosts center the turned names above the columns, where neighbors overlap.
    figure.autofmt_xdate(ha='left')
    if len(names) > MOST_CLASSES:
        figure.axes[0].set(xticks=[], yticks=[])
    figure.savefig(path, bbox_inches='tight')
    pyplot.close(figure)


def _render(title: str, rows: list[dict[str, str]], texts: Sequence[str] = ()) -> str:
    """Return the text of a table, without spaces at the end of lines."""
    file = io.StringIO()
    print_table(title, rows, console=Console(file=file), texts=texts)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    return '\n'.join(lines)


def _class_names(runner: Runner, count: int) -> list[str]:
    """Return the names of so many classes; those without a name have their number."""
    dataset = runner.test_dataloader.dataset
    meta = getattr(dataset, 'metainfo', None)
    known: Sequence[Any] = ()
    if meta and meta.get('classes'):
        known = meta['classes']
    names = []
    for number in range(count):
        name = known[number] if number < len(known) else number
        names.append(str(name))
    return names


def _find_plot(runner: Runner) -> Callable[..., Any] | None:
    """Return the function of a host's metric that draws confusion matrices, or None."""
    for metric in runner.test_evaluator.metrics:
        if hasattr(metric, 'plot'):
            plot: Callable[..., Any] = metric.plot
            return plot
    return None
