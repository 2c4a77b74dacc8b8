"""What the first batch tells about a place inside an encoder.

Names say nothing of how an encoder uses its parts: VGG walks through the layers of its
``features`` one by one and never calls the container, and CLIP's transformers have their
tokens before their samples. The first batch shows both.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.errors import UserError

#: How many names a message lists.
_LISTED = 40


class FirstBatch:
    """The hooks before and after an encoder's first forward pass, and the place between.

    In training the encoder runs once more, on twice the batch and without gradients: the
    dimension of the features that doubles is the one of the samples.

    Args:
        name (str): The place, a submodule's name.
        neck (nn.Module): What follows it.
    """

    def __init__(self, name: str, neck: nn.Module) -> None:
        self.name = name
        self.neck = neck
        self.is_over = False
        self._runs = 0  # of the place, in this forward pass
        self._probing = self._told = False
        self._doubled: torch.Size | None = None

    def sees(self, x: Any) -> bool:
        """Note the features at the place; return whether the neck takes them now.

        Raises:
            UserError: The samples are in another dimension than the neck expects.
        """
        if self._probing:
            if self._doubled is None and isinstance(x, Tensor):
                self._doubled = x.shape
            return False
        if self.is_over or _is_traced():
            return True
        if not self._runs and isinstance(x, Tensor):
            self._check_samples(x.shape)
        self._runs += 1
        return True

    def before(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See where the samples are, before the first batch of a training."""
        if self.is_over or _is_traced():
            return
        self._runs, self._doubled = 0, None
        if encoder.training and torch.is_grad_enabled():
            self._probing = True
            try:
                with _at_rest(encoder):
                    encoder.forward(*map(_twice, args), **{k: _twice(v) for k, v in kwargs.items()})
            except Exception as e:  # an encoder that takes no other batch: nothing is known
                self._doubled = None
                print_log(f'No second batch for {self.name}: {e}', 'current', logging.DEBUG)
            finally:
                self._probing = False

    def after(
        self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """See that the place ran; warn once if it ran several times.

        Raises:
            UserError: It did not; the names of those that do are listed.
        """
        if self.is_over or _is_traced():
            return
        self.is_over = encoder.training  # an evaluation says nothing of the samples
        if self._runs > 1 and not self._told:
            self._told = True
            print_log(
                f"'{self.name}' of {type(encoder).__name__} runs {self._runs} times in a forward "
                'pass, and each output goes through the block. Fix, if that is not meant: name a '
                'module that runs once, or give the block to the encoder within.',
                logger='current',
                level=logging.WARNING,
            )
        if self._runs or is_compiled(encoder):
            return
        names = self._names(encoder, args, kwargs)
        raise UserError(
            f"backbone.after='{self.name}' of {type(encoder).__name__} did not run in its forward "
            'pass, so that the block would do nothing. Fix: name a module that runs: '
            f'{", ".join(names[:_LISTED])}{", ..." if len(names) > _LISTED else ""}.'
        )

    def _names(self, encoder: nn.Module, args: Any, kwargs: Any) -> list[str]:
        """Return what runs below the place, or in the encoder, and gives features."""
        ran: list[str] = []
        hooks = [
            m.register_forward_hook(_Note(ran, n))
            for n, m in encoder.named_modules()
            if n and not n.startswith('llm_neck')
        ]
        try:
            with _at_rest(encoder):
                encoder.forward(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        below = [n for n in ran if n.startswith(f'{self.name}.')]
        names = sorted(set(below or ran), key=(below or ran).index)
        shallow = min((n.count('.') for n in names), default=0) + (not below)
        return [n for n in names if n.count('.') <= shallow]

    def _check_samples(self, shape: torch.Size) -> None:
        doubled = self._doubled
        if doubled is None or len(doubled) != len(shape):
            return
        layout = getattr(self.neck, 'layout', None)
        expected = layout.index('B') if layout else 0
        found = [i for i, (n, d) in enumerate(zip(shape, doubled, strict=True)) if d == 2 * n]
        if not found or expected in found:
            return
        other = 'NBC' if len(shape) == 3 and found[0] == 1 else None
        raise UserError(
            f"The features at backbone.after='{self.name}' are {list(shape)} with the samples in "
            f'dimension {found[0]}, but the neck takes them from dimension {expected}: tokens of '
            'different samples would attend to each other. Fix: '
            + (f"neck.layout='{other}'." if other else 'another place.')
        )


class _Note:
    """A hook that notes a module which gives features."""

    def __init__(self, ran: list[str], name: str) -> None:
        self.ran, self.name = ran, name

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(first, Tensor) and first.dim() >= 3:
            self.ran.append(self.name)


def callable_names(modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of modules that can be called, not those that only hold others."""
    missing = nn.Module.forward
    return [n for n, m in modules.items() if getattr(type(m), 'forward', missing) is not missing]


def is_compiled(model: nn.Module) -> bool:
    """Return whether ``torch.compile`` was given a model or one of its modules.

    What runs in compiled code leaves no trace in Python.
    """
    return any(
        getattr(m, '_compiled_call_impl', None) is not None or type(m).__name__ == 'OptimizedModule'
        for m in model.modules()
    )


def _twice(x: Any) -> Any:
    return torch.cat([x, x]) if isinstance(x, Tensor) and x.dim() else x


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


@contextmanager
def _at_rest(encoder: nn.Module) -> Iterator[None]:
    """Evaluation without gradients that leaves modes and random numbers as they were."""
    modes = [(m, m.training) for m in encoder.modules()]
    devices = {t.device for t in itertools.chain(encoder.parameters(), encoder.buffers())}
    with torch.no_grad(), torch.random.fork_rng([d for d in devices if d.type == 'cuda']):
        for m, _ in modes:
            m.training = False
        try:
            yield
        finally:
            for m, mode in modes:
                m.training = mode
