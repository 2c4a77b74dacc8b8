"""Results of each class after a test: a table, the confusion matrix, and its picture.

MMEngine writes lists and matrices to the log as they are, without the classes' names.
Metrics of mmpretrain and mmaction2 compute both: ``ConfusionMatrix``, and
``SingleLabelMetric`` with ``average=None``.

pandas and scikit-learn are imported when a test has such metrics; other tests do without.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lm4ve.runner.console import SHOWN, WIDTH

if TYPE_CHECKING:
    import pandas as pd

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
        lists = find_lists(metrics or {})
        matrix = find_matrix(metrics or {})
        if not lists and matrix is None:
            return
        dataset = runner.test_dataloader.dataset
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        try:
            self._report(runner, lists, matrix, classes or ())
        except ImportError as e:
            # The scores of the test are in the log by now.
            runner.logger.warning(
                f'No results of each class: {e}. Fix: pip install pandas scikit-learn'
            )

    def _report(
        self,
        runner: Runner,
        lists: dict[str, Sequence[float]],
        matrix: np.ndarray | None,
        classes: Sequence[Any],
    ) -> None:
        """Print the tables, and save the picture.

        Args:
            runner (Runner): Gives the log and its folder.
            lists (dict): See :func:`find_lists`.
            matrix (np.ndarray, optional): See :func:`find_matrix`.
            classes (Sequence): The names of the classes, if known.
        """
        frame = class_frame(lists, matrix, classes)
        runner.logger.info(class_table(frame), extra=SHOWN)
        if matrix is None:
            return
        names = name_classes(classes, len(matrix))
        runner.logger.info(matrix_table(names, matrix), extra=SHOWN)
        if is_main_process():
            path = Path(runner.log_dir) / 'confusion_matrix.png'
            draw_matrix(matrix, names, path)
            runner.logger.info(f'{"picture":12} {path}', extra=SHOWN)


def find_matrix(metrics: dict[str, Any]) -> np.ndarray | None:
    """Return the confusion matrix among the metrics, or None.

    Returns:
        np.ndarray: ``[C, C]``, the numbers of samples; a row for each true class, a
        column for each predicted one.
    """
    for value in metrics.values():
        shape = tuple(getattr(value, 'shape', ()))
        if len(shape) != 2 or shape[0] != shape[1]:
            continue
        matrix = np.asarray(value)
        if np.issubdtype(matrix.dtype, np.integer):
            return matrix
    return None


def find_lists(metrics: dict[str, Any]) -> dict[str, Sequence[float]]:
    """Return the metrics that have a number for each class.

    Returns:
        dict[str, Sequence[float]]: Named by the last part of the metric's name, or by
        more of it where metrics share that part, as 'a/f1-score' and 'b/f1-score'.
    """
    lists = {}
    for name, values in metrics.items():
        if name.endswith(_CLASSWISE):
            lists[name.removesuffix(_CLASSWISE)] = values
    return {_shorten(name, lists): values for name, values in lists.items()}


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


def name_classes(classes: Sequence[Any], count: int) -> list[str]:
    """Return the names of so many classes, or their numbers if there are more or fewer names."""
    if len(classes) != count:
        classes = range(count)
    return [str(name) for name in classes]


def class_frame(
    lists: dict[str, Sequence[float]],
    matrix: np.ndarray | None,
    classes: Sequence[Any] = (),
) -> pd.DataFrame:
    """Return a table with a row for each class.

    Args:
        lists (dict): See :func:`find_lists`. A list that is shorter than others ends
            with NaN.
        matrix (np.ndarray, optional): The confusion matrix ``[C, C]``. It gives the
            number of samples, recall and precision, in percent. A list of one of these
            names has the same numbers, and is left out.
        classes (Sequence): Their names. The classes are numbered if these are not as
            many as the rows.

    Returns:
        pd.DataFrame: NaN stands for the recall of a class without samples, and for the
        precision of one that was never predicted.
    """
    import pandas as pd

    columns = {}
    if matrix is not None:
        right = pd.Series(np.diagonal(matrix))
        samples = pd.Series(matrix.sum(axis=1))
        predicted = pd.Series(matrix.sum(axis=0))
        # Whole numbers also where a longer list beside it adds rows.
        columns['samples'] = samples.astype('Int64')
        columns['recall'] = 100 * right / samples
        columns['precision'] = 100 * right / predicted
    for name, values in lists.items():
        columns.setdefault(name, pd.Series(np.asarray(values, dtype=float)))
    frame = pd.DataFrame(columns)
    frame.index = pd.Index(name_classes(classes, len(frame)), name='class')
    return frame


def class_table(frame: pd.DataFrame) -> str:
    """Return the table of :func:`class_frame` as text, of many classes the weakest."""
    title = 'each class'
    if len(frame) > MOST_CLASSES:
        title = f'the weakest {MOST_CLASSES} of {len(frame)} classes'
        weakness = 'recall' if 'recall' in frame else frame.columns[0]
        # NaN comes last.
        frame = frame.sort_values(weakness, kind='stable').head(MOST_CLASSES)
    frame = frame.rename(index=_shorten_class)
    text: str = frame.reset_index().to_string(
        index=False, float_format='{:.2f}'.format, na_rep='-'
    )
    return f'{title}\n{text}'


def _shorten_class(name: str) -> str:
    """Return the beginning of a class's name that fits beside the numbers."""
    return name[: WIDTH // 2]


def matrix_table(names: Sequence[str], matrix: np.ndarray) -> str:
    """Return the confusion matrix as text, or its largest fields if it is too wide.

    Args:
        names (Sequence[str]): Of the classes.
        matrix (np.ndarray): See :func:`find_matrix`.
    """
    import pandas as pd

    if len(names) > WIDTH:
        return confusion_table(names, matrix)
    rows = [f'{i} {name[:_NAME_WIDTH]}' for i, name in enumerate(names)]
    frame = pd.DataFrame(matrix, index=rows)
    text = frame.astype(str).replace('0', '.').to_string()
    if max(len(line) for line in text.splitlines()) > WIDTH:
        return confusion_table(names, matrix)
    return f'confusion matrix: a row for each true class, a column for each predicted\n{text}'


def confusion_table(names: Sequence[str], matrix: np.ndarray) -> str:
    """Return the largest confusions of one class with another as text.

    Args:
        names (Sequence[str]): Of the classes.
        matrix (np.ndarray): See :func:`find_matrix`.
    """
    import pandas as pd

    confused = matrix.copy()
    np.fill_diagonal(confused, 0)
    largest = np.argsort(-confused, axis=None, kind='stable')[:MOST_CONFUSIONS]
    true, predicted = np.unravel_index(largest, confused.shape)
    shown = np.array([name[: WIDTH // 3] for name in names])
    counts = confused[true, predicted]
    frame = pd.DataFrame(
        {
            'true': shown[true],
            'predicted': shown[predicted],
            'samples': counts,
            '% of the class': 100 * counts / matrix.sum(axis=1)[true].clip(min=1),
        }
    )
    frame = frame[frame['samples'] > 0]
    if frame.empty:
        return 'no confusion: each sample is predicted right'
    text: str = frame.to_string(index=False, float_format='{:.1f}'.format)
    return f'the largest confusions\n{text}'


def draw_matrix(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Save a picture of the confusion matrix.

    Args:
        matrix (np.ndarray): See :func:`find_matrix`.
        names (Sequence[str]): Of the classes.
        path (Path): Of the picture.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    side = np.clip(0.4 * len(names), 5, 16)
    figure = Figure((side + 1, side), layout='constrained')
    axes = figure.subplots()
    ConfusionMatrixDisplay(matrix, display_labels=names).plot(
        ax=axes,
        include_values=len(names) <= _MOST_NUMBERS,
        xticks_rotation='vertical',
    )
    if len(names) > MOST_CLASSES:
        axes.set(xticks=[], yticks=[])
    figure.savefig(path)
