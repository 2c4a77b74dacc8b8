"""What a checkpoint's pickle may hold beside tensors and plain containers.

Published checkpoints hold a training script's command line, numpy's numbers, and what
stock MMEngine logs and schedules. Under the names of these classes and functions
torch's loader gets the stand-ins of this file, which take numbers and text and call
nothing that the file names.

``builtins.getattr`` is among the names: pickle asks it for each function of a class, as
for the statistics of MMEngine's ``HistoryBuffer``. The true one leads from any function
to its ``__globals__``, and so to every module. Ours answers from a table.
"""

import argparse
import pickle
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

_NUMBER = re.compile(r'b1|[iu][1248]|f[248]|c8|c16')
#: numpy's version of the state of a pickled array.
_STATE_VERSION = 1
#: HistoryBuffer's own statistics, which each buffer repeats in its file.
_STATISTICS = ('min', 'max', 'current', 'mean')
#: OneCycleParamScheduler's two shapes of a schedule.
_ANNEALING = ('_annealing_cos', '_annealing_linear')
_SCHEDULERS = 'mmengine.optim.scheduler.param_scheduler'


# -----------------------------------------------------------------------------------
# numpy
class _NumberType:
    """Takes the place of ``numpy.dtype`` in a pickle, for types of numbers alone.

    Attributes:
        code (str): numpy's code of the type, such as 'f4', or '>f4' for big-endian.
    """

    def __init__(self, code: object, *_: object) -> None:
        """Store the type's code; numpy's further arguments, align and copy, are ignored.

        Raises:
            UnpicklingError: It is not the code of a number.
        """
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise pickle.UnpicklingError('a type of numpy that is no number')
        self.code = code

    def __setstate__(self, state: tuple[object, ...]) -> None:
        """Read the byte order, the second entry of a numpy type's state; ignore the rest."""
        if state[1] == '>':
            self.code = f'>{self.code}'


def _number(kind: object, data: object) -> bool | int | float | complex:
    """Take the place of ``numpy.core.multiarray.scalar``: return a number of Python.

    Args:
        kind (_NumberType): The number's type.
        data (bytes): Its bytes.

    Raises:
        UnpicklingError: The arguments are not these.
    """
    if not isinstance(kind, _NumberType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError('an object of numpy that is no number')
    value: bool | int | float | complex = np.frombuffer(data, kind.code, 1)[0].item()
    return value


class _NumberArray(np.ndarray):
    """Takes the place of ``numpy.ndarray`` in a pickle, and is pickled as one."""

    def __setstate__(self, state: Any) -> None:
        """Fill the array from its pickled state, if it is one of numbers.

        Args:
            state (tuple): numpy's: version of the format, shape, type, whether the order
                is Fortran's, and bytes.

        Raises:
            UnpicklingError: The type or the bytes are none of numbers, or the shape is
                none.
            ValueError: The state has not five entries, or the number of bytes does not
                fit the shape.
        """
        _, shape, kind, is_fortran, data = state
        if not isinstance(kind, _NumberType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError('an array of numpy without numbers')
        if not _is_shape(shape):
            raise pickle.UnpicklingError('an array of numpy without a shape')
        # numpy compares the number of bytes with the shape.
        dtype = np.dtype(kind.code)
        checked_state: Any = (_STATE_VERSION, shape, dtype, is_fortran is True, data)
        super().__setstate__(checked_state)

    def __reduce__(self) -> Any:
        """Pickle as a plain numpy array, without this class."""
        return np.array(self).__reduce__()


def _is_shape(shape: object) -> bool:
    """Return whether this is a tuple of sizes."""
    if not isinstance(shape, tuple):
        return False
    return all(type(size) is int and size >= 0 for size in shape)


def _empty_array(cls: object, *_: object) -> _NumberArray:
    """Take the place of ``numpy.core.multiarray._reconstruct``: make an array to be filled.

    Shape and type, the further arguments, are ignored; the state that follows in the
    pickle has them again.

    Args:
        cls (type): The array's class, as the pickle names it.

    Raises:
        UnpicklingError: It is not numpy's own.
    """
    if cls is not _NumberArray:
        raise pickle.UnpicklingError('an array of a class of its own')
    return np.ndarray.__new__(_NumberArray, 0)


# --------------------------------------------------------------------------------
# MMEngine
class _History(HistoryBuffer):  # type: ignore[misc]
    """Takes the place of MMEngine's ``HistoryBuffer``, and becomes one when its state is read."""

    def __init__(self, *_: object) -> None:
        """Refuse a call of the class: a pickled buffer is filled by its state.

        Raises:
            UnpicklingError: Always.
        """
        raise pickle.UnpicklingError('a HistoryBuffer that is no state')

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Fill the buffer with the arrays of its state, and make it a true HistoryBuffer.

        Raises:
            UnpicklingError: The state has no two arrays of numbers of one length, or no
                maximal length.
        """
        # The statistics are functions of the class, not of the file.
        history = state['_log_history']
        counts = state['_count_history']
        length = state['max_length']
        for values in (history, counts):
            if not isinstance(values, _NumberArray):
                raise pickle.UnpicklingError('a HistoryBuffer without arrays')
        if type(length) is not int:
            raise pickle.UnpicklingError('a HistoryBuffer without a length')
        if history.ndim != 1 or history.shape != counts.shape:
            raise pickle.UnpicklingError('a HistoryBuffer of other shapes')
        HistoryBuffer.__init__(self, history, counts, length)
        self.__class__ = HistoryBuffer


class _OneCycle:
    """Takes the place of MMEngine's ``OneCycleParamScheduler``, of which no object is made.

    A file only names the class to get one of its functions, by :func:`_function_of_class`.
    """

    def __init__(self, *_: object) -> None:
        """Refuse a call of the class.

        Raises:
            UnpicklingError: Always.
        """
        raise pickle.UnpicklingError('a scheduler instead of its state')


def _function_of_class(owner: object, name: object, *_: object) -> object:
    """Take the place of ``builtins.getattr`` in a pickle, for a few functions of two classes.

    A file of MMEngine asks for a function of a class by its name: for the statistics
    ('min', 'mean', ...) of ``HistoryBuffer``, and for the two shapes of the schedule of
    ``OneCycleParamScheduler``.

    Args:
        owner: The class, in whose place the loader has :class:`_History` or
            :class:`_OneCycle`.
        name: The name of the function.

    Returns:
        str or Callable: For a statistic its name alone, since :class:`_History` ignores
        the functions in a file and has those of its class. For a schedule MMEngine's true
        function, which is called later and only computes with numbers.

    Raises:
        UnpicklingError: The function is none of these.
    """
    if owner is _History and type(name) is str and name in _STATISTICS:
        return name
    if owner is _OneCycle and type(name) is str and name in _ANNEALING:
        scheduler = import_module(_SCHEDULERS).OneCycleParamScheduler
        return getattr(scheduler, name)
    raise pickle.UnpicklingError('a call of getattr')


def _plain_dict(content: object, *_: object) -> dict[Any, Any]:
    """Take the place of ``ConfigDict``, which a data set's ``metainfo`` may hold."""
    if type(content) is not dict:
        raise pickle.UnpicklingError('a ConfigDict that is no dict')
    return content


#: Full name in a pickle -> what the loader builds.
ALLOWED: dict[str, Callable[..., Any]] = {
    # Training scripts of timm's descent store their command line. A Namespace sets
    # attributes on itself and does nothing else.
    'argparse.Namespace': argparse.Namespace,
    'numpy.dtype': _NumberType,
    'numpy.ndarray': _NumberArray,
    'numpy.core.multiarray.scalar': _number,
    'numpy._core.multiarray.scalar': _number,
    'numpy.core.multiarray._reconstruct': _empty_array,
    'numpy._core.multiarray._reconstruct': _empty_array,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    f'{_SCHEDULERS}.OneCycleParamScheduler': _OneCycle,
    'mmengine.config.config.ConfigDict': _plain_dict,
    'builtins.getattr': _function_of_class,
}
