"""What errors of other libraries mean for a user: one message instead of a traceback.

Only mistakes that a user can mend are explained. Everything else is a bug of ours or
of a library, and keeps its traceback.
"""

import errno
import inspect
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from types import FrameType
from typing import Any

from mmengine.registry import FUNCTIONS, OPTIMIZERS, Registry
from torch.distributed import DistNetworkError

from lm4ve.errors import UserError


def explain(error: BaseException) -> str | None:
    """Return what the user can do about an error, or None if it is a bug.

    Args:
        error (BaseException): What ended a tool.
    """
    for explanation in _EXPLANATIONS:
        if (message := explanation(error)) is not None:
            return message.strip()
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean ...?" for the known words closest to one, or nothing."""
    close = get_close_matches(word, list(known), 3, 0.6)
    return f' Did you mean {" or ".join(map(repr, close))}?' if close else ''


def _own(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, UserError):
        # A dataloader worker's error arrives with its traceback as text.
        message = text.rpartition('lm4ve.errors.')[2]
        return message if message == text else message.partition(': ')[2]
    return None


def _unsafe_checkpoint(error: BaseException) -> str | None:
    if not isinstance(error, pickle.UnpicklingError):
        return None
    reason = str(error).strip().splitlines()[-1].strip()
    return (
        'a checkpoint was not loaded: it holds more than tensors and plain data, and loading it '
        f'could run code. ({reason}) Fix: convert it in a trusted place; or, if you trust its '
        'origin, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 for this command.'
    )


def _unknown_type(error: BaseException) -> str | None:
    if str(error).startswith('type must be a str or valid type, but got '):
        frame = _frame(error, lambda f: isinstance(f.f_locals.get('cfg'), Mapping))
        if frame is None:
            return None
        place = f'type={frame.f_locals["cfg"].get("type")!r}'
        return f'{place} of a config must be the name of what is built. Fix: correct it.'
    if str(error) == 'None is not a callable object':  # MMEngine looks before it builds
        frame = _frame(error, lambda f: 'optimizer_cfg' in f.f_locals)
        return _unregistered(frame.f_locals['optimizer_cfg']['type'], OPTIMIZERS) if frame else None
    found = re.search(r'(\S+) is not in the \S+?::\S.*? registry', str(error))
    if not isinstance(error, KeyError) or found is None:
        return None
    frame = _frame(error, lambda f: isinstance(f.f_locals.get('registry'), Registry))
    return _unregistered(found[1].strip('\'"'), frame.f_locals['registry']) if frame else None


def _unknown_collate(error: BaseException) -> str | None:
    if str(error) != 'the first argument must be callable':  # MMEngine looks before it wraps
        return None
    name = _value(error, 'collate_fn_type')
    return _unregistered(name, FUNCTIONS) if isinstance(name, str) else None


def _unregistered(name: str, registry: Registry) -> str:
    return (
        f"type='{name}' is not registered among the {registry.name}s of '{registry.scope}'."
        f'{did_you_mean(name, _names(registry.root))} Fix: correct it, or add the module that '
        'registers it to custom_imports.'
    )


def _names(registry: Registry) -> list[str]:
    """Return what a registry and those below it hold, with a child's scope before it."""
    names = list(registry.module_dict)
    for child in registry.children.values():
        names += _names(child)
    return names


def _wrong_argument(error: BaseException) -> str | None:
    text = str(error)
    unknown = re.search(r"got an unexpected keyword argument '(\w+)'", text)
    missing = re.search(r'missing (\d+ required .*arguments?: .*)', text)
    if not isinstance(error, TypeError):
        return None
    frame = _frame(error, lambda f: 'obj_cls' in f.f_locals or 'scheduler_cls' in f.f_locals)
    if frame is None:
        return None
    built = frame.f_locals.get('obj_cls') or frame.f_locals['scheduler_cls']
    if missing is not None:
        return f"type='{built.__name__}' misses {missing[1]}. Fix: add it to the config."
    if unknown is None:
        return None
    known = _arguments(built)
    if unknown[1] in known:
        return None  # the config is right, so a bug
    called = text.partition('.__init__()')[0]
    if called != text and called not in {c.__name__ for c in getattr(built, '__mro__', ())}:
        # It builds another one, for example a loop its dataloader.
        return (
            f"type='{built.__name__}' builds a {called}, which takes no argument '{unknown[1]}'. "
            'Fix: correct it in the config.'
        )
    return (
        f"type='{built.__name__}' takes no argument '{unknown[1]}'."
        f'{did_you_mean(unknown[1], known)} It takes {", ".join(known)}.'
    )


def _refused_value(error: BaseException) -> str | None:
    """Explain what a constructor itself says of a value in the config, or fails on."""
    if not isinstance(error, ValueError | AssertionError | TypeError) or not str(error).strip():
        return None
    frame = _frame(error, lambda f: 'obj_cls' in f.f_locals or 'scheduler_cls' in f.f_locals)
    last = _last_frame(error)
    if frame is None or last is None or last.f_code.co_name != '__init__':
        return None
    if isinstance(error, TypeError) and _is_ours(last):
        return None  # a check of ours is missing, so a bug
    built = frame.f_locals.get('obj_cls') or frame.f_locals['scheduler_cls']
    text = ' '.join(str(error).split())
    return f"type='{built.__name__}' refuses its arguments: {text}. Fix: correct the config."


def _arguments(built: Callable[..., object]) -> list[str]:
    """Return the arguments of a class, those that it passes on to its bases included."""
    classes = built.__mro__ if inspect.isclass(built) else [built]
    found: dict[str, None] = {}
    for c in classes:
        if c is object:
            continue
        parameters = inspect.signature(c).parameters.values()
        found |= {
            p.name: None for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(found)


def _frame(error: BaseException, wanted: Callable[[FrameType], bool]) -> FrameType | None:
    """Return the innermost wanted frame of MMEngine's registry in an error's traceback."""
    found, trace = None, error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.endswith(('build_functions.py', 'default_constructor.py')) and wanted(
            trace.tb_frame
        ):
            found = trace.tb_frame
        trace = trace.tb_next
    return found


def _value(error: BaseException, name: str) -> Any:
    """Return a local variable of the innermost frame that has it."""
    found, trace = None, error.__traceback__
    while trace is not None:
        found = trace.tb_frame.f_locals.get(name, found)
        trace = trace.tb_next
    return found


def _last_frame(error: BaseException) -> FrameType | None:
    """Return where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame if trace is not None else None


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get('__name__')).startswith('lm4ve.')


def _widths(error: BaseException) -> str | None:
    """Explain a product of matrices that do not fit within a host's model."""
    words = (
        'shapes cannot be multiplied',
        "^shape '.*' is invalid for input",
        'must match the size of tensor',
    )
    if not isinstance(error, RuntimeError) or not re.search('|'.join(words), str(error)):
        return None
    frame, trace = None, error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_globals.get('__name__', '').startswith('torch'):
            frame = trace.tb_frame
        trace = trace.tb_next
    if frame is None or _is_ours(frame):
        return None
    model = type(frame.f_locals.get('self')).__name__
    return (
        f'the widths of the model do not fit in {model}: {error}. Fix: make in_channels of each '
        'part the width of what comes before it, and embed_dims a multiple of num_heads.'
    )


def _label(error: BaseException) -> str | None:
    text = str(error)
    found = re.search(r'Target (-?\d+) is out of bounds', text)
    if found is None and 'Class Index must be less than number of classes' not in text:
        return None
    label = f'the label {found[1]}' if found else 'a label'
    return (
        f"{label} of the data is outside the head's classes. Fix: set num_classes of model.head "
        'to the number of classes in the data (labels count from 0), or correct the annotations.'
    )


def _disk(error: BaseException) -> str | None:
    if not isinstance(error, OSError) or error.errno not in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EFBIG,
    ):
        return None
    where = f"'{error.filename}'" if error.filename else 'a file of this run'
    return (
        f'{where} cannot be written or read: {error.strerror}. Fix: free space there, correct its '
        'permissions, or name another folder.'
    )


def _port(error: BaseException) -> str | None:
    if not isinstance(error, DistNetworkError) or 'EADDRINUSE' not in str(error):
        return None
    port = re.search(r'port: (\d+)', str(error))
    return busy_port(port[1] if port else 'of this run')


def busy_port(port: int | str) -> str:
    """Return what to do where another process listens on the port of the rendezvous."""
    return (
        f'the port {port} is in use, perhaps by another training. Fix: set another one, for '
        'example PORT=29511 before the command (MASTER_PORT under Slurm).'
    )


_EXPLANATIONS = (
    *(_own, _unsafe_checkpoint, _unknown_type, _unknown_collate, _wrong_argument, _refused_value),
    *(_widths, _label, _disk, _port),
)
