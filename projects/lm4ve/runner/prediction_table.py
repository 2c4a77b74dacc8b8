"""Predicted labels or numbers as a CSV file, a row for each sample: ``lm4ve test --out``.

MMEngine's ``DumpResults`` writes a pickle, which needs Python and the hosts to be read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor

from lm4ve.errors import UserError
from lm4ve.files import write_csv
from lm4ve.runner.console import SHOWN

#: Fields of a sample that hold its file's path: of mmpretrain, of mmaction2.
_PATHS = ('img_path', 'filename')


class PredictionTable(BaseMetric):  # type: ignore[misc]
    """Write the prediction for each sample, its path and the truth to a CSV file.

    A classifier's samples have ``pred_label``, and the columns are path, label, prediction
    and score. Labels and predictions are names of classes where the data has names, else
    numbers. The score is that of the prediction, in general its probability.

    A regression's samples have one number ``pred_value`` instead, and the columns are path,
    target (``gt_value``) and prediction.

    :func:`lm4ve.files.write_csv` says what becomes of names that a spreadsheet would run.

    Args:
        path (str | Path): Of the file. An older file is replaced when the test ends.

    Raises:
        UserError: A sample has no path, or not exactly one predicted label or number.
    """

    # MMEngine warns of metrics without a prefix; this one has no values to name.
    default_prefix = 'predictions'

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the row of each sample."""
        for sample in data_samples:
            number = _number_of(sample, 'pred_value')
            if number is None:
                row = self._row_of_label(sample)
            else:
                row = self._row_of_number(sample, number)
            self.results.append(row)

    def _row_of_number(self, sample: dict[str, Any], number: float) -> dict[str, Any]:
        """Return the cells of a regression's sample, by their columns."""
        return dict(
            path=self._path_of(sample),
            target=_number_of(sample, 'gt_value'),
            prediction=number,
        )

    def _row_of_label(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return the cells of a classifier's sample, by their columns."""
        prediction = _label_of(sample, 'pred_label')
        if prediction is not None and 'pred_score' in sample:
            # Averaged views may still have the label of the first one (mmpretrain).
            prediction = int(sample['pred_score'].argmax())
        if prediction is None:
            raise UserError(
                f"--out='{self.path}': this model predicts no label, or several, and no "
                'number (pred_value). Fix: a name that ends with .pkl.'
            )
        label = _label_of(sample, 'gt_label')
        score = None
        if 'pred_score' in sample:
            score = f'{float(sample["pred_score"][prediction]):.6f}'
        return dict(
            path=self._path_of(sample),
            label=None if label is None else self._name_of(label),
            prediction=self._name_of(prediction),
            score=score,
        )

    def _path_of(self, sample: dict[str, Any]) -> str:
        """Return the path of a sample's file."""
        for field in _PATHS:
            if field in sample:
                return str(sample[field])
        raise UserError(
            f"--out='{self.path}': the samples have no path. Fix: a data set of files, with "
            f'{" or ".join(_PATHS)} among the meta_keys of the transform that packs; or a '
            'name that ends with .pkl.'
        )

    def _name_of(self, label: int) -> str:
        """Return the name of a class, or its number if it has none."""
        names = (self.dataset_meta or {}).get('classes') or ()
        if label < len(names):
            return str(names[label])
        return str(label)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Write the file. There are no metrics."""
        columns = list(results[0])
        write_csv(columns, [row.values() for row in results], self.path)
        logger = MMLogger.get_current_instance()
        logger.info(f'{"predictions":12} {self.path}', extra=SHOWN)
        return {}


def require_one_label(dataset: Any, path: str | Path) -> None:
    """Refuse data of several labels a sample before a test, which the first sample shows.

    A model of such data predicts exactly one label for some samples. So it would be
    noticed late, or not at all.

    Args:
        dataset: The data set of the test.
        path (str | Path): The value of ``--out``, for the error.

    Raises:
        UserError: A sample has several labels.
    """
    if not hasattr(dataset, 'get_data_info') or len(dataset) == 0:
        return
    sample = dataset.get_data_info(0)
    # Labels are a list of numbers, or a 0 or 1 for each class.
    if np.ndim(sample.get('gt_label', 0)) > 0 or 'gt_score' in sample:
        raise UserError(
            f"--out='{path}': samples of {type(dataset).__name__} have several labels, for "
            'which a table has no room. Fix: a name that ends with .pkl.'
        )


def _label_of(sample: dict[str, Any], field: str) -> int | None:
    """Return a sample's label, or None if it has none, or several."""
    label = sample.get(field)
    if isinstance(label, Tensor) and label.numel() == 1:
        return int(label)
    return None


def _number_of(sample: dict[str, Any], field: str) -> float | None:
    """Return a sample's number in seven digits, or None if it has none, or several."""
    number = sample.get(field)
    if isinstance(number, Tensor) and number.numel() == 1:
        # As many as fp32 holds: what was read as 2.1 is written as 2.1.
        return float(f'{number.item():.7g}')
    return None
