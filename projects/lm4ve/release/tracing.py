"""Traces a model so that the batch, and other dimensions, may have any size."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Program = torch.export.ExportedProgram


@contextmanager
def traceable() -> Iterator[None]:
    """Switch off inside the context what a trace cannot follow, and restore it afterwards.

    That is torch's fused kernel for transformer layers in inference, an operator that
    no export format has.
    """
    fast_path_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path_enabled)


def varying_axes(
    tensors: Sequence[Tensor], axes: Sequence[Mapping[int, str]]
) -> list[dict[int, str]]:
    """Return the varying dimensions without those of size 1, which a trace keeps constant.

    For example, a forecast of the focal agents alone always has one query a scene.

    Args:
        tensors (Sequence[Tensor]): An example of each tensor.
        axes (Sequence[Mapping[int, str]]): Dimension -> name, for each tensor.
    """
    axes_to_trace = []
    for tensor, names in zip(tensors, axes, strict=True):
        varying = {i: name for i, name in names.items() if tensor.shape[i] > 1}
        axes_to_trace.append(varying)
    return axes_to_trace


def trace(
    function: nn.Module,
    tensors: Sequence[Tensor],
    axes: Sequence[Mapping[int, str]],
    limits: Mapping[str, int] | None = None,
) -> Program:
    """Trace a module, so that named dimensions may have any size.

    Args:
        function (nn.Module): Its ``forward`` takes ``*tensors``, as that of
            :class:`lm4ve.release.exporting.Exported`.
        tensors (Sequence[Tensor]): An example of its inputs, of two samples or more.
        axes (Sequence[Mapping[int, str]]): For each input, the dimensions that vary ->
            their names. Dimensions of one name have one size.
        limits (Mapping[str, int], optional): Name -> the largest size of the dimension.
    """
    if limits is None:
        limits = {}
    dims: dict[str, Any] = {}
    shapes = []
    for varying in axes:
        shape = {}
        for i, name in varying.items():
            if name not in dims:
                dims[name] = torch.export.Dim(name, max=limits.get(name))
            shape[i] = dims[name]
        shapes.append(shape)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.export.export(
            function, tuple(tensors), dynamic_shapes=(tuple(shapes),)
        )


def output_axes(
    program: Program, axes: Sequence[Mapping[int, str]]
) -> list[dict[int, str]]:
    """Return the dimensions of each output that vary, named as those of the inputs.

    A trace has a symbol such as 's0' for each varying size. An output's size that is a
    symbol of an input gets that input's name; one that is computed of symbols, such as
    '2*s0', is named by this text.

    Args:
        program (ExportedProgram): A trace of :func:`trace`. Each of its outputs is
            computed from the inputs.
        axes (Sequence[Mapping[int, str]]): The ``axes`` that the trace was made with.

    Returns:
        list[dict[int, str]]: For each output, dimension -> name.
    """
    shapes = {}
    for node in program.graph.nodes:
        shapes[node.name] = getattr(node.meta.get('val'), 'shape', ())
    signature = program.graph_signature
    # By text, since equal symbols of torch need not be one object.
    name_of_symbol = {}
    for tensor, varying in zip(signature.user_inputs, axes, strict=True):
        for i, name in varying.items():
            symbol = str(shapes[tensor][i])
            name_of_symbol[symbol] = name
    axes_of_outputs = []
    for tensor in signature.user_outputs:
        varying_sizes = {}
        for i, size in enumerate(shapes[tensor]):
            if not isinstance(size, int):
                symbol = str(size)
                varying_sizes[i] = name_of_symbol.get(symbol, symbol)
        axes_of_outputs.append(varying_sizes)
    return axes_of_outputs
