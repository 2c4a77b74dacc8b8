"""Compare the config that a checkpoint was trained with to the one that uses it now.

Tensors fit a model that computes something else: with 8 heads for 4, with another
activation, on pixels of another mean. The checkpoint stores its training's config
(:mod:`.stored_config`). Everything that loads a checkpoint for an evaluation or to
resume calls :func:`compare_with_training`, which lists what differs in one warning, or
refuses it.
"""

import difflib
import itertools
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger, print_log

from lm4ve.errors import CheckpointError, UserError, brief, listing
from lm4ve.runner.checkpoint_files import meta_of
from lm4ve.runner.config.classes import classes_named
from lm4ve.runner.console import SHOWN
from lm4ve.runner.signatures import NO_DEFAULT, default_of
from lm4ve.runner.stored_config import (
    Unreadable,
    plain_config,
    plain_value,
    stored_config,
)
from lm4ve.runner.training_fields import (
    OF_OPTIMIZER,
    OF_SCHEDULE,
    RECORDED,
    SAME_IN_EVALUATION,
    SOURCES,
    WITHOUT_EFFECT,
    acts_in_training_only,
    is_loss,
)

#: Where the types in a trained config are looked up, and in the one of now.
Scopes = tuple[Any, Any]
#: How many fields a message lists.
_MOST_LINES = 20
#: How many characters of a value a message shows.
_WIDTH = 60
#: The value of a field that a dict does not have.
ABSENT = object()
#: Endings of files with weights and no settings.
_WEIGHT_FILES = ('.bin', '.ckpt', '.npz', '.pt', '.pth', '.safetensors')


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


_EVALUATED = ('model', 'data_preprocessor', 'test_dataloader')
#: Use -> the top-level fields that are compared.
_SECTIONS = {
    Use.TEST: _EVALUATED,
    Use.INFERENCE: _EVALUATED,
    Use.VALIDATION: ('model', 'data_preprocessor', 'val_dataloader'),
    Use.RESUME: (
        *_EVALUATED,
        'train_dataloader',
        'val_dataloader',
        'optim_wrapper',
        'param_scheduler',
    ),
}
#: Use -> those of them that both configs need for a comparison.
_NEEDED = {
    Use.TEST: ('model', 'test_dataloader'),
    Use.INFERENCE: ('model', 'test_dataloader'),
    Use.VALIDATION: ('model', 'val_dataloader'),
    Use.RESUME: ('model',),
}


@dataclass(frozen=True)
class Difference:
    """A field that has another value than in the training.

    Attributes:
        field (str): Its path in the config, as ``--cfg-options`` takes it.
        trained: Its value in training; :data:`ABSENT` if it was not there.
        now: Its value now; :data:`ABSENT` if it is not there.
        applies (bool): False if a resumed training keeps the trained value, as it is in
            the optimizer's state.
    """

    field: str
    trained: Any
    now: Any
    applies: bool = True

    def __str__(self) -> str:
        trained, now = _shortened(as_code(self.trained), as_code(self.now))
        before = 'without it' if self.trained is ABSENT else f'with {trained}'
        text = f'{brief(self.field, 200)}: trained {before}, now {now}'
        if not self.applies:
            text += ', which does not apply'
        return text


@dataclass
class Comparison:
    """What :func:`compare` found.

    Attributes:
        differences (list[Difference]): By field.
        not_compared (list[str]): Fields whose values cannot be read as data, or that one
            of the two configs lacks.
        reason (str): Why nothing was compared; '' if something was.
    """

    differences: list[Difference] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    reason: str = ''

    @property
    def is_empty(self) -> bool:
        """Whether all was compared, and nothing differs."""
        return not (self.differences or self.not_compared or self.reason)

    def in_lines(self, origin: str) -> str:
        """Describe it, a line a field, for the checkpoint of a name."""
        if self.reason:
            return f'{origin} {self.reason}: model and preprocessing were not compared.'
        if not self.differences:
            return f'{origin}: not compared with its training: {self._names()}'
        lines = [f'{origin} was trained otherwise:']
        lines += [f'  {each}' for each in self.differences[:_MOST_LINES]]
        left_out = len(self.differences) - _MOST_LINES
        if left_out > 0:
            lines.append(f'  and {left_out} more fields')
        if self.not_compared:
            lines.append(f'  not compared: {self._names()}')
        return '\n'.join(lines)

    def in_a_line(self, origin: str) -> str:
        """Describe it in one line, for the checkpoint of a name."""
        if self.reason:
            return f'{origin} {self.reason}, so that nothing was compared'
        parts = []
        if self.differences:
            parts.append(f'was trained otherwise: {listing(self.differences)}')
        if self.not_compared:
            parts.append(f'is not compared with its training: {self._names()}')
        return f'{origin} {"; it ".join(parts)}'

    def _names(self) -> str:
        names = [brief(name, 200) for name in self.not_compared]
        return listing(names, 10)


def differences(
    trained: Mapping[str, Any], now: Mapping[str, Any], use: Use = Use.TEST
) -> list[Difference]:
    """Return the fields that differ between the config of a training and another one.

    See :func:`compare`, whose arguments these are.
    """
    return compare(trained, now, use).differences


def compare(
    trained: Mapping[str, Any], now: Mapping[str, Any], use: Use = Use.TEST
) -> Comparison:
    """Compare the config of a training with the one that uses its checkpoint.

    Compared are the model, its data preprocessor and the transforms of the tested data;
    for a test, its split where the class of the data is the same; for a training that
    goes on, also the losses and rates of dropping, the transforms of training, and the
    optimizer. :mod:`.training_fields` lists what is left out. Folders of paths are no
    difference, nor are a list and a tuple, 1 and 1.0, a type with and without its scope,
    or a field that is written with the default of its class.

    Args:
        trained (Mapping): Plain data (:mod:`.stored_config`). Nothing is built of it.
        now (Mapping): Plain data. Defaults are those of the classes that it names.
        use (Use): What the checkpoint is loaded for.
    """
    walk = _Walk(trained, now, use)
    for section in _SECTIONS[use]:
        before = _part(trained, section)
        after = _part(now, section)
        is_loader = section.endswith('_dataloader')
        if section in _NEEDED[use] and (before is ABSENT) != (after is ABSENT):
            walk.found.not_compared.append(section)
        elif is_loader and ABSENT in (before, after):
            # A training may do without validation.
            continue
        elif is_loader:
            walk.compare_datasets(section, before, after)
        else:
            walk.compare(_path_of(now, section), before, after)
    found = walk.found
    found.differences = _in_order(found.differences)
    found.not_compared.sort()
    return found


def _in_order(found: Iterable[Difference]) -> list[Difference]:
    """Sort differences by field, without those of validation that the test has, too."""
    in_test = [str(each) for each in found if each.field.startswith('test_')]
    kept = []
    for each in found:
        twin = str(each).replace('val_', 'test_', 1)
        if not each.field.startswith('val_') or twin not in in_test:
            kept.append(each)
    kept.sort(key=_place_of)
    return kept


def _place_of(difference: Difference) -> list[tuple[int, str]]:
    """Return by what differences are sorted: numbers in a field come in their order."""
    place = []
    for part in difference.field.split('.'):
        # Of two numbers, the one with fewer digits comes first.
        digits = len(part) if part.isdecimal() else 0
        place.append((digits, part))
    return place


# ---------------------------------------------------------------------- what is compared
def _part(cfg: Mapping[str, Any], section: str) -> Any:
    """Return a part of a config as it acts, or :data:`ABSENT`."""
    model = cfg.get('model')
    while isinstance(_field_of(model, 'module'), Mapping):
        # A model for test-time augmentation has the trained one as its module.
        model = _field_of(model, 'module')
    value = cfg.get(section)
    if section == 'model':
        value = model
        if isinstance(model, Mapping):
            value = {name: model[name] for name in model if name != 'data_preprocessor'}
    elif section == 'data_preprocessor' and isinstance(model, Mapping):
        # MMEngine gives the model the one of the top level if it has none of its own.
        value = model.get('data_preprocessor') or value
    elif section == 'test_dataloader':
        value = value or cfg.get('val_dataloader')
    return ABSENT if value is None else value


def _path_of(cfg: Mapping[str, Any], section: str) -> str:
    """Return the path of a part of a config."""
    own = _field_of(cfg.get('model'), section)
    has_own = isinstance(own, Mapping) and own != cfg.get(section)
    if section == 'data_preprocessor' and has_own:
        return 'model.data_preprocessor'
    return section


def innermost_dataset(dataset: Any) -> Any:
    """Return the settings of a data set within wrappers that have no transforms of their own."""
    while 'pipeline' not in dataset and isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    return dataset


def _kept(dataset: Any, with_split: bool) -> Any:
    """Return what is compared of the settings of a data set.

    Args:
        dataset (dict): The settings.
        with_split (bool): Keep its split, too.
    """
    if not isinstance(dataset, Mapping):
        return dataset
    dataset = innermost_dataset(dataset)
    names = ['_scope_', 'pipeline']
    if with_split:
        names.append('split')
    kept = {name: dataset[name] for name in names if name in dataset}
    for name in ('dataset', 'datasets'):
        inner = dataset.get(name)
        if isinstance(inner, (list, tuple)):
            kept[name] = [_kept(item, with_split) for item in inner]
        elif isinstance(inner, Mapping):
            kept[name] = _kept(inner, with_split)
    return kept


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
    parts: dict[str, Any] = dict(default_scope=_scope_in(trained))
    for section in ('model', 'data_preprocessor'):
        part = _part(trained, section)
        if part is not ABSENT:
            parts[section] = _portable(part)
    for section in ('val_dataloader', 'test_dataloader'):
        dataset = _field_of(_part(trained, section), 'dataset')
        if isinstance(dataset, Mapping):
            kept = _kept(dataset, with_split=True)
            kept['type'] = innermost_dataset(dataset).get('type')
            parts[section] = dict(dataset=_portable(kept))
    return parts


def _portable(value: Any) -> Any:
    """Return a value for JSON, without folders and without what has no effect."""
    if isinstance(value, Mapping):
        kept = {}
        for key, item in value.items():
            if key not in WITHOUT_EFFECT or key == '_scope_':
                kept[str(key)] = _portable(item)
        return kept
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    if isinstance(value, (str, Unreadable)):
        return _name_in_folder(_text_of(value))
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return repr(value)


class _Walk:
    """Walks through two configs at once, and collects what differs.

    Args:
        trained, now (Mapping): The configs.
        use (Use): What the checkpoint is loaded for.
    """

    def __init__(
        self, trained: Mapping[str, Any], now: Mapping[str, Any], use: Use
    ) -> None:
        self.resumes = use is Use.RESUME
        self.scores = use in (Use.TEST, Use.VALIDATION)
        self.found = Comparison()
        self.scopes = (_scope_in(trained), _scope_in(now))

    def compare_datasets(self, name: str, trained: Any, now: Any) -> None:
        """Compare the transforms of two data loaders, and for a score the split.

        Another class of data is no difference: a model is tested on other data by choice.

        Args:
            name (str): The field of the loaders.
            trained, now: The loaders' settings.
        """
        name = f'{name}.dataset'
        before = _field_of(trained, 'dataset')
        after = _field_of(now, 'dataset')
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            self.found.not_compared.append(name)
            return
        before = innermost_dataset(before)
        after = innermost_dataset(after)
        is_same_data = self._is_same_type(before, after, self.scopes)
        with_split = self.scores and is_same_data
        self.compare(name, _kept(before, with_split), _kept(after, with_split))

    def compare(
        self, path: str, trained: Any, now: Any, scopes: Scopes | None = None
    ) -> None:
        """Compare two values.

        Args:
            path (str): Where they are.
            trained, now: The values.
            scopes (tuple, optional): Where the types in each of them are looked up.
                Default: the scopes of the configs.
        """
        scopes = scopes or self.scopes
        if isinstance(trained, Mapping) and isinstance(now, Mapping):
            self._compare_dicts(path, trained, now, scopes)
        elif _has_dicts(trained) and _has_dicts(now):
            for index, before, after in _aligned(trained, now):
                self.compare(f'{path}.{index}', before, after, scopes)
        elif _are_equal(trained, now):
            return
        elif _is_unknown(trained, now):
            self.found.not_compared.append(path)
        else:
            self._add(path, trained, now)

    def _add(self, path: str, trained: Any, now: Any) -> None:
        """Add a difference."""
        is_in_state = '.optimizer.' in path or path.startswith('param_scheduler')
        applies = not (self.resumes and is_in_state)
        self.found.differences.append(Difference(path, trained, now, applies))

    def _compare_dicts(
        self,
        path: str,
        trained: Mapping[Any, Any],
        now: Mapping[Any, Any],
        scopes: Scopes,
    ) -> None:
        """Compare two dicts field by field, or as a whole if they are of two classes."""
        # An export has the numbers of keys as texts.
        trained = {str(key): value for key, value in trained.items()}
        now = {str(key): value for key, value in now.items()}
        scopes = (
            trained.get('_scope_', scopes[0]),
            now.get('_scope_', scopes[1]),
        )
        is_preprocessor = path.endswith('data_preprocessor')
        # Its class follows from the model's where it has no type.
        has_types = 'type' in trained and 'type' in now
        if has_types or not is_preprocessor:
            if not self._is_same_type(trained, now, scopes):
                self._add(path, trained, now)
                return
        for key in sorted({*trained, *now} - {'type'}):
            if self._is_compared(path, key, now):
                before = trained.get(key, ABSENT)
                after = now.get(key, ABSENT)
                if ABSENT in (before, after):
                    default = _default_of(now, key, scopes[1])
                    before = default if before is ABSENT else before
                    after = default if after is ABSENT else after
                self._compare_field(path, key, before, after, scopes)

    def _compare_field(
        self, path: str, key: str, trained: Any, now: Any, scopes: Scopes
    ) -> None:
        """Compare the values of a field of two dicts."""
        field_path = f'{path}.{key}'
        if key in SOURCES and not (_names_model(trained) and _names_model(now)):
            # Where the initial weights were, which the checkpoint's have replaced.
            return
        if is_loss(key) and not self.resumes:
            self.compare(
                f'{field_path}.use_sigmoid', _uses_sigmoid(trained), _uses_sigmoid(now)
            )
            return
        self.compare(field_path, trained, now, scopes)

    def _is_compared(self, path: str, key: str, now: Mapping[Any, Any]) -> bool:
        """Return whether a field of a dict at a path is compared."""
        recorded = RECORDED.get(_bare(now.get('type')))
        if recorded is not None:
            evaluated, resumed = recorded
            return key in (resumed if self.resumes else evaluated)
        if key in WITHOUT_EFFECT:
            return False
        section = path.partition('.')[0]
        if section == 'optim_wrapper':
            return key not in OF_OPTIMIZER
        if section == 'param_scheduler':
            return key not in OF_SCHEDULE
        if self.resumes or section not in ('model', 'data_preprocessor'):
            return True
        return not acts_in_training_only(key)

    def _is_same_type(
        self, trained: Mapping[Any, Any], now: Mapping[Any, Any], scopes: Scopes
    ) -> bool:
        """Return whether two dicts name the same class, with or without its scope."""
        before = trained.get('type')
        after = now.get('type')
        if not isinstance(before, str) or not isinstance(after, str):
            return bool(before == after)
        if _bare(before) != _bare(after):
            return False
        first = _scope_of(before, scopes[0])
        second = _scope_of(after, scopes[1])
        # Every scope finds what MMEngine's root has.
        return first == second or 'mmengine' in (first, second)


# ------------------------------------------------------------------------------- values
def _scope_in(cfg: Mapping[str, Any]) -> str:
    """Return the scope in which a config's types are looked up."""
    scope = cfg.get('default_scope')
    return scope if isinstance(scope, str) else 'mmengine'


def _scope_of(name: str, default: Any) -> Any:
    """Return the scope of a type, as ``mmpretrain`` of 'mmpretrain.ViT', or the default one."""
    scope, dot, _ = name.partition('.')
    return scope if dot else default


def _bare(name: Any) -> str:
    """Return a type without its scope; one name for classes that evaluate equally."""
    bare = str(name).rpartition('.')[2]
    return SAME_IN_EVALUATION.get(bare, bare)


def _field_of(value: Any, name: str) -> Any:
    """Return a field of a dict; a value that is no dict as it is."""
    return value.get(name) if isinstance(value, Mapping) else value


def _has_dicts(value: Any) -> bool:
    """Return whether a value is a list with dicts in it, at any depth."""
    if not isinstance(value, (list, tuple)):
        return False
    return any(isinstance(item, Mapping) or _has_dicts(item) for item in value)


def _are_equal(trained: Any, now: Any) -> bool:
    """Return whether two values are the same for a model.

    A list equals a tuple, a path the same name in another folder, and None a field that
    is left out.
    """
    if isinstance(trained, (list, tuple)) and isinstance(now, (list, tuple)):
        if len(trained) != len(now):
            return False
        return all(itertools.starmap(_are_equal, zip(trained, now, strict=True)))
    if isinstance(trained, (str, Unreadable)) and isinstance(now, (str, Unreadable)):
        # An export has the text of what is no data.
        before = _name_in_folder(_text_of(trained))
        return before == _name_in_folder(_text_of(now))
    if isinstance(trained, float) and isinstance(now, float):
        return trained == now or (math.isnan(trained) and math.isnan(now))
    if ABSENT in (trained, now):
        return trained in (ABSENT, None) and now in (ABSENT, None)
    return bool(trained == now)


def _text_of(value: str | Unreadable) -> str:
    return value.text if isinstance(value, Unreadable) else value


def _name_in_folder(text: str) -> str:
    """Return the last part of a path; another text as it is."""
    return re.split(r'[\\/]', text.rstrip('\\/'))[-1]


def _names_model(value: Any) -> bool:
    """Return whether a value names a pretrained model whose settings count, by folder or hub id.

    A file of weights has no settings.
    """
    if not isinstance(value, str) or '://' in value:
        return False
    return not value.endswith(_WEIGHT_FILES)


def _uses_sigmoid(loss: Any) -> bool:
    """Return whether a loss, or one of several, lets its head predict by a sigmoid."""
    if isinstance(loss, (list, tuple)):
        return any(_uses_sigmoid(item) for item in loss)
    return isinstance(loss, Mapping) and bool(loss.get('use_sigmoid'))


def _is_unknown(trained: Any, now: Any) -> bool:
    """Return whether one of two values is unknown: no data, or in a file that is not read."""
    for value, other in ((trained, now), (now, trained)):
        if isinstance(value, Unreadable):
            return True
        is_file = isinstance(value, str) and bool(Path(value).suffix)
        if is_file and isinstance(other, (Mapping, list, tuple)):
            return True
    return False


def _default_of(node: Mapping[Any, Any], key: str, scope: Any) -> Any:
    """Return the default of a field of the class that a dict names, or :data:`ABSENT`.

    Args:
        node (Mapping): A dict of the config that is used now, whose classes are imported
            for it anyway. Never one of a checkpoint, which could name any module.
        key (str): The field.
        scope (str): Where the type is looked up.
    """
    name = node.get('type')
    if not isinstance(name, str):
        return ABSENT
    try:
        classes = classes_named(name, '', scope)
    except UserError:  # misspelt; building it is an error
        return ABSENT
    for each in classes:
        default = default_of(each, key)
        if default is not NO_DEFAULT:
            return plain_value(default)
    return ABSENT


def _aligned(
    trained: Sequence[Any], now: Sequence[Any]
) -> Iterator[tuple[int, Any, Any]]:
    """Pair the entries of two lists of dicts: equal ones first, then those of one class.

    Yields:
        tuple[int, Any, Any]: The place in the list of now (of the training, for one that
        is gone), and the two entries. One without a partner has :data:`ABSENT`.
    """
    for a, b in _matched(trained, now, as_code):
        if len(a) == 1 and len(b) == 1:
            yield b[0], trained[a[0]], now[b[0]]
            continue
        olds = [trained[i] for i in a]
        news = [now[i] for i in b]
        for c, d in _matched(olds, news, _class_of):
            for old, new in itertools.zip_longest(c, d):
                before = ABSENT if old is None else olds[old]
                after = ABSENT if new is None else news[new]
                yield (a[old] if new is None else b[new]), before, after


def _matched(
    trained: Sequence[Any], now: Sequence[Any], key: Callable[[Any], str]
) -> Iterator[tuple[range, range]]:
    """Yield the places of entries in two lists: one by one where keys match, else in groups."""
    matcher = difflib.SequenceMatcher(
        None, [key(item) for item in trained], [key(item) for item in now], False
    )
    for tag, start, end, first, last in matcher.get_opcodes():
        if tag != 'equal':
            yield range(start, end), range(first, last)
            continue
        for step in range(end - start):
            old = start + step
            new = first + step
            yield range(old, old + 1), range(new, new + 1)


def _class_of(entry: Any) -> str:
    """Return what entries of one class have in common."""
    if isinstance(entry, Mapping):
        return _bare(entry.get('type'))
    return type(entry).__name__


# ----------------------------------------------------------------------------- messages
def as_code(value: Any) -> str:
    """Write a value as a config file has it."""
    if isinstance(value, Mapping):
        return _dict_as_code(value)
    if isinstance(value, (list, tuple)):
        items = ', '.join(as_code(item) for item in value)
        return f'[{items}]' if isinstance(value, list) else f'({items})'
    if value is ABSENT:
        return 'left out'
    if isinstance(value, Unreadable):
        return brief(value.text)
    try:
        return repr(value)
    except ValueError:  # an integer of thousands of digits
        return 'a huge number'


def _dict_as_code(value: Mapping[Any, Any]) -> str:
    """Write a dict as a config file has it, its type first."""
    fields = []
    for key in sorted(value, key=lambda key: (key != 'type', str(key))):
        text = as_code(value[key])
        is_name = isinstance(key, str) and key.isidentifier()
        fields.append(f'{key}={text}' if is_name else f'{key!r}: {text}')
    return f'dict({", ".join(fields)})'


def _shortened(first: str, second: str) -> tuple[str, str]:
    """Shorten two texts to the part in which they differ."""
    if max(len(first), len(second)) <= _WIDTH:
        return first, second
    start = len(os.path.commonprefix([first, second]))
    start = max(start - _WIDTH // 3, 0)
    return _cut(first, start), _cut(second, start)


def _cut(text: str, start: int) -> str:
    """Return some characters of a text from a place on, and dots where something is left out."""
    shown = text[start : start + _WIDTH]
    before = '...' if start > 0 else ''
    after = '...' if start + _WIDTH < len(text) else ''
    return f'{before}{shown}{after}'


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
        CheckpointError: With ``strict``, a field differs or could not be compared.
    """
    found = compare_with(checkpoint, cfg, use)
    if strict and not found.is_empty:
        raise CheckpointError(
            f'{found.in_a_line(origin)}. Fix: the config and the options of its training; or '
            'leave out --strict-config (strict_config=True).'
        )
    if found.differences:
        text = found.in_lines(origin)
        print_log(text, logger='current', level=logging.WARNING)
    elif not found.is_empty:
        MMLogger.get_current_instance().info(found.in_lines(origin), extra=SHOWN)


def compare_with(
    checkpoint: dict[str, Any], cfg: Mapping[str, Any], use: Use
) -> Comparison:
    """Compare the config of a checkpoint's training with another one; see :func:`compare`.

    The arguments are those of :func:`compare_with_training`.
    """
    trained = stored_config(meta_of(checkpoint))
    if isinstance(trained, Mapping):
        return compare(trained, plain_config(cfg), use)
    reason = 'holds no config of its training'
    if trained is not None:
        reason = f'holds a config that cannot be read ({brief(trained.text)})'
    return Comparison(reason=reason)
