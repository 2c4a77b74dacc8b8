"""Run the forward pass of training steps through torch.compile: the config's ``compile``.

MMEngine 0.10.7 compiles the whole step, with preprocessor and optimizer, which ends in
an internal error of torch 2.13. Here the model's forward pass with its losses is
compiled. Names of weights, checkpoints, EMA, validation and tests stay as they are:
copies of the model and other modes are not compiled.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from lm4ve.errors import UserError, check


class TrainingForward:
    """What a model is called through: compiled in training steps, otherwise as it is.

    The first step is not compiled, so that ``NeckHook`` sees in it what the necks do:
    compiled code runs no hooks that are removed later. That hook asks for
    ``first_step_is_plain``.

    Args:
        model (nn.Module): A model of MMEngine, also within a distributed wrapper.
        options (Mapping): Arguments of ``torch.compile``.
    """

    first_step_is_plain = True

    def __init__(self, model: nn.Module, options: Mapping[str, Any]) -> None:
        self._plain: Callable[..., Any] = model._call_impl
        self._compiled = torch.compile(self._plain, **options)
        self._has_run = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model, or its compiled code if this is a training step."""
        if kwargs.get('mode') != 'loss':
            return self._plain(*args, **kwargs)
        if not self._has_run:
            self._has_run = True
            return self._plain(*args, **kwargs)
        return self._compiled(*args, **kwargs)


def parse_compile(compile: Any) -> dict[str, Any] | None:
    """Return the options of ``torch.compile`` that a config has; None: do not compile.

    Raises:
        UserError: The field ``compile`` is neither a bool nor a dict.
    """
    if compile is None or compile is False:
        return None
    check('compile', compile, kind=(bool, dict))
    if compile is True:
        return {}
    options: dict[str, Any] = compile
    return options


def compile_training(model: nn.Module, options: Mapping[str, Any]) -> None:
    """Compile a model's forward pass in training, when its second step comes.

    Args:
        model (nn.Module): A model of MMEngine, also within a distributed wrapper.
        options (Mapping): Arguments of ``torch.compile``.

    Raises:
        UserError: See :func:`check_compile`.
    """
    check_compile(options)
    # torch calls a module through this attribute, as after ``module.compile()``. Copies
    # of the module do not get it.
    model._compiled_call_impl = TrainingForward(model, options)


def check_compile(options: Mapping[str, Any]) -> None:
    """Check the options of ``torch.compile``, and that its default backend has a compiler.

    Raises:
        UserError: ``torch.compile`` has no such option or backend, or the machine has no
            C++ compiler.
    """
    known = set(inspect.signature(torch.compile).parameters) - {'model'}
    for name in options:
        check('compile', name, choices=known)
    backend = options.get('backend', 'inductor')
    if isinstance(backend, str):
        check('compile.backend', backend, choices=_backends())
    if backend == 'inductor' and not torch.cuda.is_available():
        _check_compiler()


def _backends() -> list[str]:
    """Return the names of backends that users know; torch lists some for its tests, too."""
    return [*torch.compiler.list_backends(), 'aot_eager', 'eager']


def _check_compiler() -> None:
    """Check that torch finds a C++ compiler, which its code for CPUs needs.

    Raises:
        UserError: It finds none.
    """
    # Takes a second, and only a training with `compile` needs it.
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError as e:
        raise UserError(
            'compile=True needs a C++ compiler, and torch finds none. Fix: install g++, '
            'name one by the variable CXX, or leave `compile` out.'
        ) from e
