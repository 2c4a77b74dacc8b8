"""One trace of a model that holds for every batch."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from lm4ve.necks import LLMBlockNeck


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
    """
    names = {name for varying in axes for name in varying.values()}
    dims = {name: torch.export.Dim(name, max=(limits or {}).get(name)) for name in names}
    shapes = tuple({i: dims[name] for i, name in varying.items()} for varying in axes)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.export.export(function, tuple(tensors), dynamic_shapes=(shapes,))


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
