"""An input with the encoder's output for it, which a folder can hold as a proof.

Whether an encoder is made as it was shows in what it computes, whatever library it comes
from. Compared is the encoder alone, without its blocks, since their frozen weights and
settings are compared by their record.
"""

import contextlib
import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from lm4ve.blocks.seeding import seeded_cpu_generator
from lm4ve.errors import CheckpointError, UserError, first_line, require
from lm4ve.necks.neck_hook import remove_hooks

#: Bytes that an input and its output may have together.
_LARGEST = 1 << 20
#: Names of the tensors in a folder.
_INPUT = 'lm4ve_example.input'
_OUTPUT = 'lm4ve_example.output'


@dataclass
class Example:
    """An input of an encoder, and its output.

    Attributes:
        inputs (dict[str, Tensor]): The arguments of its ``forward`` by name. Those that
            are given by place have numbers from 0 as names.
        outputs (list[Tensor]): The tensors of floats that it returns, in fp32.
    """

    inputs: dict[str, Tensor]
    outputs: list[Tensor]

    def __post_init__(self) -> None:
        size = sum(tensor.nbytes for tensor in self.inputs.values())
        size_of_output = sum(tensor.nbytes for tensor in self.outputs)
        require(
            size + size_of_output <= _LARGEST,
            f'example= has {size:,} bytes and its output {size_of_output:,}, together '
            f'at most {_LARGEST:,}. Fix: one sample, a smaller one, or .half().',
        )

    @classmethod
    def of(cls, model: nn.Module, inputs: Any) -> 'Example':
        """Run an encoder on an input.

        Args:
            model (nn.Module): The encoder, with or without a block.
            inputs (Tensor | Sequence | Mapping): Its argument, several, or several by
                name; all of them tensors.

        Raises:
            UserError: An argument is no tensor, the encoder does not run or returns no
                finite numbers, or input and output are larger than 1 MiB.
        """
        named = _named(inputs)
        try:
            outputs = run_alone(model, named)
        except UserError:
            raise
        except Exception as e:  # of any library
            raise UserError(
                f'example=: {type(model).__name__} without its block does not run on '
                f'it in float32 on the CPU: {type(e).__name__}: {first_line(e)}'
            ) from e
        require(
            outputs and all(bool(output.isfinite().all()) for output in outputs),
            f'example=: {type(model).__name__} returns no finite numbers for it. Fix: '
            'another input.',
        )
        return cls(named, outputs)

    @classmethod
    def take(cls, tensors: dict[str, Tensor]) -> 'Example | None':
        """Take the example out of the tensors of a folder; None if it has none.

        Args:
            tensors (dict): Changed in place.
        """
        inputs = _take(tensors, f'{_INPUT}.')
        outputs = _take(tensors, f'{_OUTPUT}.')
        if not outputs:
            return None
        return cls(inputs, list(outputs.values()))

    def tensors(self) -> dict[str, Tensor]:
        """Return the example as tensors of a folder."""
        named = {}
        for name, tensor in self.inputs.items():
            named[f'{_INPUT}.{name}'] = tensor
        for number, tensor in enumerate(self.outputs):
            named[f'{_OUTPUT}.{number}'] = tensor
        return named

    def check(self, model: nn.Module, trained: Mapping[str, Tensor]) -> None:
        """Compare the output of an encoder with the one that was saved.

        Args:
            model (nn.Module): The encoder; it stays as it is.
            trained (Mapping): The tensors that will be loaded into it.

        Raises:
            CheckpointError: It computes something else.
        """
        kind = type(model).__name__
        differs = f'The folder was made with another encoder than this {kind}: '
        fix = 'Fix: make it with the same settings (heads, activation, epsilon, ...).'
        try:
            outputs = run_alone(model, self.inputs, trained)
        except Exception as e:  # of any library
            raise CheckpointError(
                f'{differs}it does not run on the example of save_pretrained '
                f'({type(e).__name__}: {first_line(e)}). {fix}'
            ) from e
        shapes = [list(output.shape) for output in outputs]
        expected = [list(output.shape) for output in self.outputs]
        if shapes != expected:
            raise CheckpointError(
                f'{differs}for the example of save_pretrained it returns {shapes}, not '
                f'{expected}. {fix}'
            )
        bound = bound_of(model)
        for output, theirs in zip(outputs, self.outputs, strict=True):
            distance = _distance(output, theirs)
            # Written so that NaN is refused.
            if not distance <= bound:
                raise CheckpointError(
                    f'{differs}its output for the example of save_pretrained differs '
                    f'by {distance:.1e} of its norm, more than rounding ({bound:.1e}). '
                    f'{fix}'
                )


def run_alone(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    trained: Mapping[str, Tensor] | None = None,
) -> list[Tensor]:
    """Run a copy of an encoder without its blocks: in evaluation, in fp32, on the CPU.

    The encoder itself, and torch's random numbers, stay as they are. Numbers that the
    encoder draws are the same at every call.

    Args:
        model (nn.Module): The encoder.
        inputs (Mapping): See :class:`Example`.
        trained (Mapping, optional): Tensors that the copy gets before.

    Returns:
        list[Tensor]: The tensors of floats in its output, in fp32.

    Raises:
        UserError: FSDP2 has split the encoder over processes.
    """
    encoder: Any = _copy_alone(model)
    if trained is not None:
        encoder.load_state_dict(trained, strict=False)
    arguments = []
    by_name = {}
    for name, tensor in inputs.items():
        argument = _in_fp32(tensor)
        if name.isdecimal():
            arguments.append(argument)
        else:
            by_name[name] = argument
    with (
        torch.no_grad(),
        torch.autocast('cpu', enabled=False),
        seeded_cpu_generator(0),
        _without_compiling(model),
    ):
        output = encoder(*arguments, **by_name)
    found = []
    for value in tree_leaves(output):
        if isinstance(value, Tensor) and value.is_floating_point():
            found.append(_in_fp32(value).contiguous())
    return found


def _without_compiling(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which parts of a model that are compiled run as they are."""
    # Its import takes long, and only an example needs it.
    from lm4ve.necks.usage import is_compiled

    if is_compiled(model):
        stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance(
            'force_eager'
        )
        return stance
    return contextlib.nullcontext()


def _copy_alone(model: nn.Module) -> nn.Module:
    """Return a copy of an encoder in evaluation mode, without its blocks and their hooks.

    Its tensors are copies on the CPU, those of floats in fp32.

    Raises:
        UserError: FSDP2 has split the encoder over processes.
    """
    # What `deepcopy` finds in the memo it takes for copied already.
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        require(
            not isinstance(parameter, DTensor),
            'example= needs a whole encoder, and FSDP2 has split this one. Fix: save it '
            'without example=.',
        )
        copied = nn.Parameter(_in_fp32(parameter), requires_grad=False)
        memo[id(parameter)] = copied
    for buffer in model.buffers():
        memo[id(buffer)] = _in_fp32(buffer)
    neck = getattr(model, 'llm_neck', None)
    if neck is not None:
        memo[id(neck)] = nn.Identity()
    encoder = copy.deepcopy(model, memo)
    remove_hooks(encoder)
    return encoder.eval()


def _in_fp32(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor on the CPU, in fp32 if it has floats."""
    if tensor.is_floating_point():
        return tensor.detach().to('cpu', torch.float32, copy=True)
    return tensor.detach().to('cpu', copy=True)


def bound_of(model: nn.Module) -> float:
    """Bound the relative distance of the outputs of one encoder, computed twice in fp32.

    A product that sums K terms errs by about ``sqrt(K) eps``, and the errors of several
    add up like random numbers (Higham and Mary 2019, "A new approach to probabilistic
    rounding error analysis"). Encoders of timm stay below a twentieth of that, with
    other kernels or compared with fp64. Weights have the same values in both: those of
    the folder, and frozen ones whose fingerprint is the folder's.

    Args:
        model (nn.Module): The encoder. Parameters of a block count, too.
    """
    sums = 1
    for parameter in model.parameters():
        if parameter.dim() > 1:
            sums += max(parameter.shape[0], parameter[:1].numel())
    return math.sqrt(sums) * torch.finfo(torch.float32).eps


def _distance(output: Tensor, expected: Tensor) -> float:
    """Return the norm of a difference, divided by the norm of what was expected."""
    norm = expected.double().norm()
    difference = (output.double() - expected.double()).norm()
    smallest = torch.finfo(torch.float32).tiny
    return float(difference / norm.clamp_min(smallest))


def _named(inputs: Any) -> dict[str, Tensor]:
    """Return the arguments of a forward pass by name, or by number.

    Raises:
        UserError: One of them is no tensor.
    """
    if isinstance(inputs, Mapping):
        named = {str(name): value for name, value in inputs.items()}
    elif isinstance(inputs, Sequence):
        named = {str(number): value for number, value in enumerate(inputs)}
    else:
        named = {'0': inputs}
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f'example=: the argument {name} is a {type(value).__name__}. Fix: a '
                'tensor, or a tuple or dict of tensors, as the model takes them.'
            )
    kept = {}
    for name, value in named.items():
        kept[name] = value.detach().to('cpu', copy=True).contiguous()
    return kept


def _take(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    """Remove the tensors whose names have a start; return them without it, in order."""
    names = [name.removeprefix(start) for name in tensors if name.startswith(start)]
    # By number: as texts, 10 would come before 2.
    names.sort(key=lambda name: (len(name), name))
    return {name: tensors.pop(start + name) for name in names}
