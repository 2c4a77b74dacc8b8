"""Lists what a training needs and this machine lacks, before anything is built.

The parts that read files say so too, but one after the other, each once a model or a
data set has been built, and in every process.
"""

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from lm4ve.errors import UserError
from lm4ve.llm.sources import find_files, locate_packaged
from lm4ve.runner.config.classes import classes_named
from lm4ve.runner.config.fields import dicts_in
from lm4ve.runner.cores import count_cores
from lm4ve.runner.process_rank import is_first_process
from lm4ve.zoo import PACKAGES

#: Fields of models with weights or a tokenizer: a path, an address, a packaged model or
#: a hub id.
_WEIGHTS = ('checkpoint', 'tokenizer')
#: Fields of models, data sets and metrics with another file.
_FILES = (
    'answers',
    'cache',
    'mean_sizes',
    'regions',
    'vocabulary',
    'word_vectors',
)
#: The packages whose classes read what their fields name.
_LIBRARIES = (*PACKAGES, 'mmengine', 'mmpretrain', 'mmaction', 'mmdet', 'mmseg')
#: The dataloaders of a training.
_LOADERS = ('train_dataloader', 'val_dataloader')
#: What to do without a block's language model, and the one to try with.
_MODEL_FIX = "put the language model's folder there, or try a small one"
_SMALL_MODEL = 'package:all-MiniLM-L6-v2'
#: Words for ``resume`` that stand for the newest checkpoint of the work directory.
SEARCHED = ('newest', 'auto')
#: What to do without any other file.
_FILE_FIX = 'put it there, or name another place'


@dataclass(frozen=True)
class Missing:
    """Something that is not there.

    Attributes:
        fields (tuple[str, ...]): Those of the config that name it.
        found (str): What is there instead, in words that follow the fields.
        fix (str): What to do about it; '' if ``found`` says so.
        option (str): Another value for the fields, by ``--cfg-options``; '' if there is
            none.
        stops (bool): Whether a training cannot begin without it.
    """

    fields: tuple[str, ...]
    found: str
    fix: str
    option: str = ''
    stops: bool = True

    def __str__(self) -> str:
        text = f'{" and ".join(self.fields)}{self.found}'
        if self.fix:
            text += f'. Fix: {self.fix}'
        if self.option:
            options = ' '.join(f'{field}={self.option}' for field in self.fields)
            text += f': --cfg-options {options}'
        return text


def require_all(cfg: Config, processes: int = 1) -> None:
    """Refuse a training that cannot begin; log what it can begin without.

    Args:
        cfg (Config): Of the training, checked.
        processes (int): How many it shall have on this machine.

    Raises:
        UserError: It names all that is missing.
    """
    found = find_missing(cfg, processes)
    if any(each.stops for each in found):
        raise UserError(describe(found))
    if not is_first_process():
        return
    for each in found:
        print_log(str(each), logger='current', level=logging.WARNING)


def describe(found: Sequence[Missing]) -> str:
    """Return a line for each thing that is missing; a single one stands alone."""
    if len(found) == 1:
        return str(found[0])
    lines = [f'{len(found)} things are missing:']
    for number, each in enumerate(found, 1):
        lines.append(f'  {number}. {each}')
    return '\n'.join(lines)


def find_missing(cfg: Config, processes: int = 1) -> list[Missing]:
    """List the weights, files, folders and GPUs that a training needs and are not there.

    Args:
        cfg (Config): Of the training. It is not changed.
        processes (int): How many it shall have on this machine.
    """
    found = []
    for field, node in dicts_in(cfg.get('model'), 'model'):
        if _is_of_libraries(_class_of(node, field, cfg)):
            found += _missing_weights(node, field)
            found += _missing_files(node, field, _FILES)
    for field, node in dicts_in(cfg.get('val_evaluator'), 'val_evaluator'):
        if _is_of_libraries(_class_of(node, field, cfg)):
            found += _missing_files(node, field, ('ann_file',))
    found += missing_start(cfg)
    for loader in _LOADERS:
        dataset = (cfg.get(loader) or {}).get('dataset')
        found += _missing_data(dataset, f'{loader}.dataset', cfg)
    found += _missing_devices(processes)
    return _merge(found)


def _class_of(node: Mapping[str, Any], field: str, cfg: Config) -> Any:
    """Return the class that a dict's type stands for; None without one.

    Args:
        node (Mapping): Of the config.
        field (str): Its field.
        cfg (Config): The whole config, for the scope.
    """
    kind = node.get('type')
    if not isinstance(kind, str):
        return kind
    scope = cfg.get('default_scope') or 'mmengine'
    classes = classes_named(kind, field, scope)
    return classes[0] if classes else None


def _is_of_libraries(kind: Any) -> bool:
    """Return whether it is known what a class's fields name: a user's may name anything."""
    return getattr(kind, '__module__', '').partition('.')[0] in _LIBRARIES


def _missing_weights(node: Mapping[str, Any], field: str) -> list[Missing]:
    """Return the weights and tokenizers of a model's part that are nowhere to be found."""
    found = []
    for name in _WEIGHTS:
        text = node.get(name)
        if not isinstance(text, str) or _is_there(text):
            continue
        place = f'{field}.{name}'
        try:
            if text.startswith('package:'):
                locate_packaged(text.removeprefix('package:'), field=place)
            else:
                find_files(text)  # of a hub
        except UserError as e:
            found.append(_missing_model(node, place, text, str(e)))
    return found


def _missing_model(
    node: Mapping[str, Any], field: str, name: str, error: str
) -> Missing:
    """Return that a language model, or other weights, are nowhere to be found.

    Args:
        node (Mapping): The part of the model that names them.
        field (str): The field with the name.
        name (str): The name.
        error (str): What the search for them says.
    """
    if name.startswith('package:'):
        sentence, _, fix = error.partition('. Fix: ')
        return Missing((field,), sentence.removeprefix(field), fix)
    is_block = str(node.get('type')).rpartition('.')[2] == 'LLMBlock'
    if is_block:
        return Missing((field,), _absent(name), _MODEL_FIX, _SMALL_MODEL)
    return Missing((field,), _absent(name), _FILE_FIX, 'FILE')


def _missing_files(
    node: Mapping[str, Any], field: str, names: Sequence[str]
) -> list[Missing]:
    """Return those files of a dict that are not there.

    Of files behind another backend nothing is known.

    Args:
        node (Mapping): Of the config.
        field (str): Its field.
        names (Sequence[str]): Of its fields that may name a file.
    """
    if node.get('backend_args'):
        return []
    found = []
    for name in names:
        path = node.get(name)
        if isinstance(path, str) and path and not _is_there(path):
            place = (f'{field}.{name}',)
            found.append(Missing(place, _absent(path), _FILE_FIX, 'FILE'))
    return found


def missing_start(cfg: Config) -> list[Missing]:
    """Return the checkpoint ``load_from``, in a list, if it is not there.

    One of the run itself may take its place; see
    :func:`lm4ve.runner.resume.choose_start`, which calls this once it is sure.
    """
    if cfg.get('resume') in SEARCHED:
        return []
    path = cfg.get('load_from')
    if not path or _is_there(str(path)):
        return []
    return [Missing(('load_from',), _absent(path), _FILE_FIX, 'FILE')]


def _missing_data(node: Any, field: str, cfg: Config) -> list[Missing]:
    """Return what a data set lacks, and those that it wraps or joins.

    Args:
        node: The data set's config; a data set that is built lacks nothing.
        field (str): Its field.
        cfg (Config): The whole config, for the scope.
    """
    if not isinstance(node, Mapping):
        return []
    found = _missing_data(node.get('dataset'), f'{field}.dataset', cfg)
    for number, part in enumerate(node.get('datasets') or ()):
        found += _missing_data(part, f'{field}.datasets.{number}', cfg)
    data_class = _class_of(node, field, cfg)
    # A data set that knows more than its fields say has a method of its own.
    own = getattr(data_class, 'find_missing', None)
    if own is not None:
        found += own(node, field)
    else:
        found += missing_in(data_class, node, field)
    return found


def missing_in(data_class: Any, node: Mapping[str, Any], field: str) -> list[Missing]:
    """Return the files and folders of a data set that its fields name and are not there.

    They are those of MMEngine's ``BaseDataset``: ``ann_file`` and ``data_prefix`` lie
    below ``data_root``. Of data behind another file backend nothing is known, nor of a
    class of the user's, which may make its files.

    Args:
        data_class (type): The data set's. With ``makes_files``, or an argument
            ``download``, it makes what is missing.
        node (Mapping): The data set's config.
        field (str): Its field.
    """
    if not isinstance(data_class, type) or not _is_of_libraries(data_class):
        return []
    parameters = inspect.signature(data_class).parameters
    makes_files = getattr(data_class, 'makes_files', False) or 'download' in parameters
    if makes_files or node.get('backend_args'):
        return []
    root = node.get('data_root')
    if root is None and 'data_root' in parameters:
        root = parameters['data_root'].default
    if not isinstance(root, str):
        root = ''
    if root and not _is_there(root):
        layout = getattr(data_class, 'layout', 'the data')
        fix = f'put {layout} there, or name another place'
        return [Missing((f'{field}.data_root',), _absent(root), fix, 'FOLDER')]
    found = _missing_files(node, field, _FILES)
    for name, path in _paths_below(node).items():
        whole = os.path.join(root, path)
        if not _is_there(whole):
            place = (f'{field}.{name}',)
            found.append(Missing(place, f": '{whole}' does not exist", 'put it there'))
    return found


def _paths_below(node: Mapping[str, Any]) -> dict[str, str]:
    """Return field -> path below ``data_root``, of those that a data set's config has."""
    fields = dict(ann_file=node.get('ann_file'))
    prefix = node.get('data_prefix')
    if isinstance(prefix, Mapping):
        for name, path in prefix.items():
            fields[f'data_prefix.{name}'] = path
    else:
        fields['data_prefix'] = prefix
    paths = {}
    for name, path in fields.items():
        # SQA3D's has {split} in it.
        if isinstance(path, str) and path and '{' not in path:
            paths[name] = path
    return paths


def _missing_devices(processes: int) -> list[Missing]:
    """Return that processes are more than GPUs or, without any, than cores, in a list."""
    gpus = torch.cuda.device_count()
    cores = count_cores()
    if processes <= (gpus or cores):
        return []
    there = f'{gpus} GPUs' if gpus else f'{cores} cores and no GPU'
    return [
        Missing(
            (f'{processes} processes',),
            f' are asked for, but this machine has {there}',
            f'ask for {gpus or cores}, or use a larger machine',
            # Without GPUs they only share the cores.
            stops=gpus > 0,
        )
    ]


def _merge(found: Sequence[Missing]) -> list[Missing]:
    """Join what is the same but for its field, such as one folder of two data sets."""
    merged: dict[Missing, Missing] = {}
    for each in found:
        key = replace(each, fields=())
        before = merged.get(key, key)
        merged[key] = replace(each, fields=before.fields + each.fields)
    return list(merged.values())


def _is_there(path: str) -> bool:
    """Return whether a path exists, or is an address, of which nothing is known."""
    return '://' in path or Path(path).expanduser().exists()


def _absent(path: str | Path) -> str:
    """Return in words that follow a field that its path does not exist."""
    return f"='{path}' does not exist"
