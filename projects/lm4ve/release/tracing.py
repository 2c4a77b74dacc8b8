"""Traces a model for every size of a batch."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.necks import LLMBlockNeck

Program = torch.export.ExportedProgram


@contextmanager
def traceable(model: nn.Module) -> Iterator[None]:
    """Make a model's layers run as plain code, and its necks uncompiled."""
    # torch's layers have one kernel of their own for inference, which no format has.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    options = {}
    for module in model.modules():
        if isinstance(module, LLMBlockNeck):
            options[module] = module.compile_options
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for neck in options:
            neck.compile_options = None
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for neck, before in options.items():
            neck.compile_options = before


def varying_axes(
    tensors: Sequence[Tensor], axes: Sequence[Mapping[int, str]]
) -> list[dict[int, str]]:
    """Leave out dimensions of size 1, which a trace takes for constants.

    A forecast of the focal agents alone has one query a scene, and stays so.
    """
    kept = []
    for tensor, varying in zip(tensors, axes, strict=True):
        own = {i: name for i, name in varying.items() if tensor.shape[i] > 1}
        kept.append(own)
    return kept


def trace(
    function: nn.Module,
    tensors: Sequence[Tensor],
    axes: Sequence[Mapping[int, str]],
    limits: Mapping[str, int] | None = None,
) -> Program:
    """Trace a function of tensors.

    Args:
        function (nn.Module): Its ``forward`` is one of ``*tensors``, as that of
            :class:`lm4ve.tasks.base.export.Exported`.
        tensors (Sequence[Tensor]): An example, of two samples or more.
        axes (Sequence[Mapping[int, str]]): The dimensions of each that vary, with
            names.
        limits (Mapping[str, int], optional): The largest size of a name.
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

    Args:
        program (ExportedProgram): A trace.
        axes (Sequence[Mapping[int, str]]): What it was made with.
    """
    shapes = {}
    for node in program.graph.nodes:
        shapes[node.name] = getattr(node.meta.get('val'), 'shape', ())
    signature = program.graph_signature
    # The trace's symbol of a size -> its name.
    names = {}
    for tensor, varying in zip(signature.user_inputs, axes, strict=True):
        for i, name in varying.items():
            names[str(shapes[tensor][i])] = name
    found = []
    for tensor in signature.user_outputs:
        varying_sizes = {}
        for i, size in enumerate(shapes[tensor]):
            if not isinstance(size, int):
                varying_sizes[i] = names.get(str(size), str(size))
        found.append(varying_sizes)
    return found
