"""Predictions and preprocessing in words and in plain data, for tasks that have the usual ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lm4ve.draw.file_names import numbered


def describe_prediction(output: Any, classes: Sequence[str] | None) -> dict[str, str]:
    """Return the predicted class, its score, and the true class, where there are any.

    Of a regression: the predicted number, and the true one.
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


def plain_prediction(output: Any, classes: Sequence[str] | None) -> dict[str, Any]:
    """Return ``pred_label``, ``pred_score``, ``pred_scores`` and, if known, ``pred_class``.

    Of a regression: ``pred_value``.
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


def name_of_sample(output: Any, number: int) -> str:
    """Name a sample by its number and its file.

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
