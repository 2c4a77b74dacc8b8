"""One trace of a model that holds for every batch."""

import os
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck

_OPERATOR = re.compile(r"OpOverload\(op='([\w.:]+)'(?:, overload='(\w+)')?\)")


@contextmanager
def traceable(model: nn.Module) -> Iterator[None]:
    """Make a model's layers run as plain code, and its necks uncompiled."""
    fused = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, LLMBlockNeck):
                stack.callback(setattr, module, 'compile_options', module.compile_options)
                module.compile_options = None
        # torch's layers have one kernel of their own for inference, which no format has.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


def varying_axes(
    tensors: Sequence[Tensor], axes: Sequence[Mapping[int, str]]
) -> list[dict[int, str]]:
    """Leave out dimensions of size 1, which a trace takes for constants.

    A forecast of the focal agents alone has one query a scene, and stays so.
    """
    return [
        {i: name for i, name in varying.items() if tensor.shape[i] > 1}
        for tensor, varying in zip(tensors, axes, strict=True)
    ]


def trace(
    function: nn.Module,
    tensors: Sequence[Tensor],
    axes: Sequence[Mapping[int, str]],
    limits: Mapping[str, int] | None = None,
) -> torch.export.ExportedProgram:
    """Trace a function of tensors.

    Args:
        function (nn.Module): Its ``forward`` is one of ``*tensors``, as that of
            :class:`lm4ve.tasks.base.export.Exported`.
        tensors (Sequence[Tensor]): An example, of two samples or more.
        axes (Sequence[Mapping[int, str]]): The dimensions of each that vary, with names.
        limits (Mapping[str, int], optional): The largest size of a name.

    Raises:
        UserError: It cannot be traced, or only for the example's sizes.
    """
    names = {name for varying in axes for name in varying.values()}
    dims = {name: torch.export.Dim(name, max=(limits or {}).get(name)) for name in names}
    shapes = tuple({i: dims[name] for i, name in varying.items()} for varying in axes)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return torch.export.export(function, tuple(tensors), dynamic_shapes=(shapes,))
    except Exception as e:  # torch raises many kinds
        raise UserError(
            f'The model cannot be traced: {_first_lines(e)}. Fix: a trace takes no decisions by '
            'values and no fixed sizes; change that in the model, or export the weights alone with '
            '--format safetensors.'
        ) from e


def output_axes(
    program: torch.export.ExportedProgram, axes: Sequence[Mapping[int, str]]
) -> list[dict[int, str]]:
    """Return the dimensions of each output that vary, named as those of the inputs.

    Args:
        program (ExportedProgram): A trace.
        axes (Sequence[Mapping[int, str]]): What it was made with.
    """
    shapes = {n.name: getattr(n.meta.get('val'), 'shape', ()) for n in program.graph.nodes}
    told = program.graph_signature
    names = {
        str(shapes[name][i]): size
        for name, varying in zip(told.user_inputs, axes, strict=True)
        for i, size in varying.items()
    }
    return [
        {i: names.get(str(n), str(n)) for i, n in enumerate(shapes[o]) if not isinstance(n, int)}
        for o in told.user_outputs
    ]


def unknown_operators(error: BaseException) -> list[str]:
    """Return the operators that a chain of errors names as those without a conversion."""
    found = []
    cause: BaseException | None = error
    while cause is not None:
        found += ['.'.join(filter(None, match)) for match in _OPERATOR.findall(str(cause))]
        cause = cause.__cause__
    return list(dict.fromkeys(found))


def users_of(program: torch.export.ExportedProgram, operator: str) -> list[str]:
    """Return the modules whose code uses an operator, by their names in the model."""
    found = []
    # What the exporter names may be a part of what the code calls.
    graphs = (program.graph, program.run_decompositions().graph)
    for node in (node for graph in graphs for node in graph.nodes):
        if node.op == 'call_function' and str(node.target).startswith(operator):
            stack: Mapping[str, Any] = node.meta.get('nn_module_stack') or {}
            path = [place for place, _ in stack.values()][-1:] or ['']
            found.append(path[0].removeprefix('model.') or 'the model itself')
    return list(dict.fromkeys(found))


def _first_lines(error: BaseException) -> str:
    """Return what an error of torch says, without its advice on logs, and where it arose."""
    lines = [line.strip(' -') for line in str(error).splitlines() if line.strip()]
    text = ' '.join(lines[:2]) if lines else type(error).__name__
    text = re.sub(r'\s*For more information, run with TORCH_LOGS=\S+\.?', '', text).rstrip('. ')
    cause: BaseException | None = error
    while cause is not None:
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if f'{os.sep}torch{os.sep}' not in frame.filename and frame.filename != __file__:
                return f'{text} ({frame.filename}, line {frame.lineno}: {frame.line})'
        cause = cause.__cause__ or cause.__context__
    return text
