"""Compare the config that a checkpoint was trained with to the one that uses it now.

Tensors fit a model that computes something else: with 8 heads for 4, with another
activation, on pixels of another mean. The checkpoint stores its training's config
(:mod:`.stored_config`). Everything that loads a checkpoint for an evaluation or to
resume calls :func:`compare_with_training`, which lists what differs in one warning, or
refuses it.

Both configs are first reduced to what counts (:func:`parts_that_count`), in one notation.
What is left is compared field by field.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any

from mmengine.logging import MMLogger, print_log

from lm4ve.errors import CheckpointError, UserError, brief, listing
from lm4ve.runner.checkpoint_files import meta_of
from lm4ve.runner.console import SHOWN
from lm4ve.runner.stored_config import Unreadable, plain_config, stored_config
from lm4ve.runner.training_fields import (
    OF_OPTIMIZER,
    RECORDED,
    SAME_IN_EVALUATION,
    SOURCES,
    WITHOUT_EFFECT,
    acts_in_training_only,
    is_loss,
)

#: How many fields a message lists.
_MOST_LINES = 20
#: Stands for the value of a field that a config does not have.
ABSENT = Unreadable('left out')
#: Endings of files with weights, which have no settings.
_WEIGHT_FILES = ('.bin', '.ckpt', '.npz', '.pt', '.pth', '.safetensors')
#: The fields of the data that a checkpoint is scored on.
_TESTED = ('test_dataloader', 'val_dataloader')
#: The fields of a data set, or of a wrapper around one, that say which part of it is read.
_OF_SPLIT = ('split', 'fold', 'num_splits', 'seed')
#: Where the settings of an optimizer begin. They are in the checkpoint's state, too.
_OPTIMIZER = 'optim_wrapper.optimizer.'


class Use(Enum):
    """What a checkpoint is loaded for, which decides what is compared."""

    #: ``runner.test()``: model, preprocessing and the split of the test data.
    TEST = 'test'
    #: ``runner.val()``: the same of the validation data.
    VALIDATION = 'val'
    #: Files of a user: model and preprocessing.
    INFERENCE = 'inference'
    #: A training that goes on: also what acts in training only.
    RESUME = 'resume'


@dataclass(frozen=True)
class Difference:
    """A field that has another value than in the training.

    Attributes:
        field (str): Its path in the config, as ``--cfg-options`` takes it.
        trained: Its value in training; :data:`ABSENT` if it was not there.
        now: Its value now; :data:`ABSENT` if it is not there.
    """

    field: str
    trained: Any
    now: Any

    def __str__(self) -> str:
        trained = 'without it'
        if self.trained is not ABSENT:
            trained = f'with {_shown(self.trained)}'
        text = f'{brief(self.field, 200)}: trained {trained}, now {_shown(self.now)}'
        if self.field.startswith(_OPTIMIZER):
            text += ', which does not apply: the optimizer keeps its state'
        return text


@dataclass
class Comparison:
    """What :func:`compare` found.

    Attributes:
        differences (list[Difference]): By field.
        not_compared (list[str]): Fields whose values cannot be read as data, or that one
            of the two configs lacks; or the reason why nothing was compared.
    """

    differences: list[Difference] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """What was found, in lines that follow the name of the checkpoint."""
        lines = []
        if self.differences:
            lines.append('was trained otherwise:')
        for difference in self.differences[:_MOST_LINES]:
            lines.append(f'  {difference}')
        left_out = len(self.differences) - _MOST_LINES
        if left_out > 0:
            lines.append(f'  and {left_out} more fields')
        if self.not_compared:
            names = [brief(name, 200) for name in self.not_compared]
            lines.append(f'not compared with its training: {listing(names)}')
        return lines


def compare_with_training(
    checkpoint: dict[str, Any],
    cfg: Mapping[str, Any],
    origin: str,
    use: Use,
    strict: bool = False,
) -> None:
    """Warn of all in which a config differs from that of a checkpoint's training.

    Args:
        checkpoint (dict): The content of the file. Its config is read as data.
        cfg (Config): The config that uses it.
        origin (str): The checkpoint's name in the message.
        use (Use): What it is loaded for.
        strict (bool): Raise an error in place of the warning; also where something cannot
            be compared.

    Raises:
        UserError: A training would go on with another optimizer.
        CheckpointError: With ``strict``, a field differs or could not be compared.
    """
    trained = stored_config(meta_of(checkpoint))
    if isinstance(trained, Mapping):
        found = compare(trained, plain_config(cfg), use)
    elif trained is None:
        found = Comparison(not_compared=['it holds no config'])
    else:
        found = Comparison(not_compared=[f'its config cannot be read, {trained}'])
    if not found.lines:
        return
    _refuse_other_optimizer(found, origin)
    if strict:
        raise CheckpointError(
            f'{origin} {"; ".join(line.strip() for line in found.lines)}. Fix: the config '
            'and the options of its training; or leave out --strict-config '
            '(strict_config=True).'
        )
    text = '\n'.join([f'{origin} {found.lines[0]}', *found.lines[1:]])
    if found.differences:
        print_log(text, logger='current', level=logging.WARNING)
    else:
        MMLogger.get_current_instance().info(text, extra=SHOWN)


def _refuse_other_optimizer(found: Comparison, origin: str) -> None:
    """Refuse another optimizer than that of the training, whose state is of other values.

    Raises:
        UserError: It names both.
    """
    for each in found.differences:
        if each.field == f'{_OPTIMIZER}type':
            raise UserError(
                f'resume: {origin[0].lower()}{origin[1:]} has the state of the optimizer '
                f'{each.trained}, and the config has {each.now}. Fix: {each.field}={each.trained}; '
                'or load_from=CHECKPOINT without --resume, which begins with its weights alone.'
            )


def compare(
    trained: Mapping[str, Any], now: Mapping[str, Any], use: Use = Use.TEST
) -> Comparison:
    """Compare the config of a training with the one that uses its checkpoint.

    Folders of paths are no difference, nor are a list and a tuple, 1 and 1.0, or a type
    with and without its scope.

    Args:
        trained (Mapping): Plain data (:mod:`.stored_config`). Nothing is built of it.
        now (Mapping): Plain data.
        use (Use): What the checkpoint is loaded for.
    """
    before = parts_that_count(trained, use)
    after = parts_that_count(now, use)
    if _has_augmented_test(now):
        # Its transforms are others by design.
        for section in _TESTED:
            before.pop(section, None)
            after.pop(section, None)
    found = Comparison()
    for section in sorted({*before, *after}):
        if section not in before or section not in after:
            # A training may do without validation.
            if section != 'val_dataloader':
                found.not_compared.append(section)
            continue
        if section.endswith('_dataloader'):
            _drop_split_of_other_data(before[section], after[section])
        for difference in _differences(section, before[section], after[section]):
            if _is_unknown(difference):
                found.not_compared.append(difference.field)
            else:
                found.differences.append(difference)
    return found


# ------------------------------------------------------------------------ what counts
def parts_that_count(cfg: Mapping[str, Any], use: Use) -> dict[str, Any]:
    """Reduce a config to what the use of a checkpoint depends on, in one notation.

    That is the model, its data preprocessor and the transforms of the tested data; for a
    score the data's split, too; for a training that goes on also what acts in training
    only, with the transforms of training and the optimizer. :mod:`.training_fields` lists
    what is left out.

    Returns:
        dict: A config of few fields. To reduce it again changes nothing.
    """
    resumes = use is Use.RESUME
    scores = use in (Use.TEST, Use.VALIDATION)
    model = _trained_model(cfg)
    # MMEngine gives the model the preprocessor of the top level if it has none of its own.
    preprocessor = model.pop('data_preprocessor', None) or cfg.get('data_preprocessor')
    parts = {
        'model': _reduced(model, resumes),
        'data_preprocessor': _reduced(preprocessor, resumes),
    }
    tested = 'val_dataloader' if use is Use.VALIDATION else 'test_dataloader'
    loader = cfg.get(tested) or cfg.get('val_dataloader')
    parts[tested] = _data_that_counts(loader, scores)
    if resumes:
        loader = cfg.get('train_dataloader')
        parts['train_dataloader'] = _data_that_counts(loader, scores)
        parts['optim_wrapper'] = _optimizer_that_counts(cfg.get('optim_wrapper'))
    return {name: part for name, part in parts.items() if part}


def portable_parts(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """Return what an export stores of the config in a checkpoint: what a test compares.

    Returns:
        dict: For JSON. Paths are reduced to their last part, since folders of this
        machine are of no use elsewhere, and private.
        None: The checkpoint has no config that can be read.
    """
    trained = stored_config(meta_of(checkpoint))
    if not isinstance(trained, Mapping):
        return None
    parts: dict[str, Any] = _portable(parts_that_count(trained, Use.TEST))
    return parts


def innermost_dataset(dataset: Any) -> Any:
    """Return the settings of a data set within wrappers that have no transforms of their own."""
    while 'pipeline' not in dataset and isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    return dataset


def _has_augmented_test(cfg: Mapping[str, Any]) -> bool:
    """Return whether a config tests by test-time augmentation (``lm4ve test --tta``)."""
    model = cfg.get('model')
    return isinstance(model, Mapping) and isinstance(model.get('module'), Mapping)


def _trained_model(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a config's model.

    A model for test-time augmentation has the trained one as its ``module``.
    """
    model = cfg.get('model')
    while isinstance(model, Mapping) and isinstance(model.get('module'), Mapping):
        model = model['module']
    if not isinstance(model, Mapping):
        return {}
    return dict(model)


def _data_that_counts(loader: Any, has_split: bool) -> dict[str, Any]:
    """Reduce a data loader to the transforms of its data, perhaps with class and split."""
    if not isinstance(loader, Mapping) or not isinstance(
        loader.get('dataset'), Mapping
    ):
        return {}
    return dict(dataset=_dataset_that_counts(loader['dataset'], has_split))


def _dataset_that_counts(dataset: Mapping[str, Any], has_split: bool) -> dict[str, Any]:
    """Reduce the settings of a data set; see :func:`_data_that_counts`."""
    kept: dict[str, Any] = {}
    innermost = innermost_dataset(dataset)
    while has_split:
        kept.update({name: dataset[name] for name in _OF_SPLIT if name in dataset})
        if dataset is innermost:
            kept['type'] = _bare(innermost.get('type'))
            break
        dataset = dataset['dataset']
    if 'pipeline' in innermost:
        # Transforms act in the same way whether a model trains.
        kept['pipeline'] = _reduced(innermost['pipeline'], resumes=True)
    joined = innermost.get('datasets')
    if isinstance(joined, (list, tuple)):
        inner = [part for part in joined if isinstance(part, Mapping)]
        parts = [_dataset_that_counts(part, False) for part in inner]
        if all(part == parts[0] for part in parts):
            kept.update(*parts[:1])
        else:
            kept['datasets'] = parts
    return kept


def _optimizer_that_counts(wrapper: Any) -> dict[str, Any]:
    """Reduce the settings of an optimizer."""
    reduced = _reduced(wrapper, resumes=True)
    if not isinstance(reduced, dict):
        return {}
    kept = {name: value for name, value in reduced.items() if name not in OF_OPTIMIZER}
    optimizer = kept.get('optimizer')
    if isinstance(optimizer, dict):
        kept['optimizer'] = {
            name: value for name, value in optimizer.items() if name not in OF_OPTIMIZER
        }
    return kept


def _reduced(value: Any, resumes: bool) -> Any:
    """Return a value of a config in one notation, without fields that have no effect.

    Tuples become lists, and types lose their scopes.

    Args:
        value: Plain data.
        resumes (bool): Keep fields that act in training only.
    """
    if isinstance(value, (list, tuple)):
        return [_reduced(item, resumes) for item in value]
    if not isinstance(value, Mapping):
        return value
    recorded = RECORDED.get(_bare(value.get('type')))
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if name in WITHOUT_EFFECT:
            continue
        if name == 'type':
            kept[name] = _bare(item)
        elif recorded is not None:
            if name in recorded:
                kept[name] = _reduced(item, resumes)
        elif name in SOURCES and (item is None or _is_weight_file(item)):
            continue
        elif resumes:
            kept[name] = _reduced(item, resumes)
        elif is_loss(name):
            if _uses_sigmoid(item):
                kept[name] = dict(use_sigmoid=True)
        elif not acts_in_training_only(name):
            kept[name] = _reduced(item, resumes)
    return kept


def _bare(name: Any) -> str:
    """Return a type without its scope; one name for classes that evaluate equally."""
    bare = str(name).rpartition('.')[2]
    return SAME_IN_EVALUATION.get(bare, bare)


def _is_weight_file(value: Any) -> bool:
    """Return whether a value names a file of weights, which has no settings."""
    return isinstance(value, str) and ('://' in value or value.endswith(_WEIGHT_FILES))


def _uses_sigmoid(loss: Any) -> bool:
    """Return whether a loss, or one of several, lets its head predict by a sigmoid."""
    if isinstance(loss, (list, tuple)):
        return any(_uses_sigmoid(item) for item in loss)
    return isinstance(loss, Mapping) and bool(loss.get('use_sigmoid'))


def _portable(value: Any) -> Any:
    """Return reduced plain data for JSON, without folders."""
    if isinstance(value, dict):
        return {name: _portable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, (str, Unreadable)):
        return _last_part(value)
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    return repr(value)


# ------------------------------------------------------------------------- differences
def _drop_split_of_other_data(trained: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare splits of the same class of data only.

    A model is tested on other data by choice.
    """
    before = trained['dataset']
    after = now['dataset']
    is_same = before.pop('type', None) == after.pop('type', None)
    if is_same:
        return
    for name in _OF_SPLIT:
        before.pop(name, None)
        after.pop(name, None)


def _differences(path: str, trained: Any, now: Any) -> Iterator[Difference]:
    """Yield the fields in which two reduced values differ.

    Lists of another length differ as a whole.
    """
    if isinstance(trained, dict) and isinstance(now, dict):
        yield from _differences_of_dicts(path, trained, now)
    elif _has_parts(trained) and _has_parts(now) and len(trained) == len(now):
        for index, (before, after) in enumerate(zip(trained, now, strict=True)):
            yield from _differences(f'{path}.{index}', before, after)
    elif not _are_equal(trained, now):
        yield Difference(path, trained, now)


def _differences_of_dicts(
    path: str, trained: dict[str, Any], now: dict[str, Any]
) -> Iterator[Difference]:
    """Yield the fields in which two reduced dicts differ."""
    for name in sorted({*trained, *now}):
        before = trained.get(name, ABSENT)
        after = now.get(name, ABSENT)
        is_left_out = before is ABSENT or after is ABSENT
        # A class may follow from another field. What initial weights were read from says
        # nothing of those that a checkpoint has.
        may_be_left_out = name == 'type' or name in SOURCES
        if is_left_out and may_be_left_out:
            continue
        yield from _differences(f'{path}.{name}', before, after)


def _has_parts(value: Any) -> bool:
    """Return whether a value is a list of dicts or of lists."""
    if not isinstance(value, list):
        return False
    return any(isinstance(item, (dict, list)) for item in value)


def _are_equal(trained: Any, now: Any) -> bool:
    """Return whether two values that are no dicts are the same for a model."""
    if isinstance(trained, (str, Unreadable)) and isinstance(now, (str, Unreadable)):
        return _last_part(trained) == _last_part(now)
    return bool(trained == now)


def _last_part(text: str | Unreadable) -> str:
    """Return the last part of a path; another text as it is."""
    return PurePath(str(text).replace('\\', '/')).name


def _is_unknown(difference: Difference) -> bool:
    """Return whether a value is unknown: no data, or in a file that is not read here."""
    values = (difference.trained, difference.now)
    has_list = any(isinstance(value, (dict, list)) for value in values)
    for value in values:
        if isinstance(value, Unreadable) and value is not ABSENT:
            return True
        if has_list and isinstance(value, str) and PurePath(value).suffix:
            return True
    return False


def _shown(value: Any) -> str:
    """Return a value for a message."""
    try:
        return brief(repr(value), 200)
    except ValueError:  # an integer of thousands of digits
        return 'a huge number'
