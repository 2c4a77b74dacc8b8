"""Trace a model for every batch, write it as a file, and run the file as its users will."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lm4ve.necks import LLMBlockNeck

#: The key of the metadata in every format.
KEY = 'lm4ve'
#: What a loaded file is: tensors in, tensors out.
Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
Program = torch.export.ExportedProgram


def write_torch_export(
    program: Program,
    path: Path,
    metadata: dict,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Write what ``torch.export.load`` reads, with the metadata as an extra file."""
    buffer = io.BytesIO()  # of a path torch wants an ending that a temporary file lacks
    torch.export.save(
        program,
        buffer,
        extra_files={f'{KEY}.json': json.dumps(metadata, allow_nan=False)},
    )
    path.write_bytes(buffer.getbuffer())


def load_torch_export(path: Path) -> Run:
    """Load a file of :func:`write_torch_export`."""
    extra = {f'{KEY}.json': ''}
    content = io.BytesIO(path.read_bytes())
    module = torch.export.load(content, extra_files=extra).module()
    json.loads(extra[f'{KEY}.json'])

    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(module(*tensors))

    return run


def write_onnx(
    program: Program,
    path: Path,
    metadata: dict,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Write an ONNX file; torch's exporter names an operator that ONNX lacks."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=inputs,
            output_names=outputs,
        )
    made.model.metadata_props[KEY] = json.dumps(metadata, allow_nan=False)
    made.model.producer_name, made.model.producer_version = KEY, metadata['version']
    proto = made.model_proto
    _name_dimensions(proto.graph, [i['shape'] for i in metadata.get('inputs', ())])
    path.write_bytes(proto.SerializeToString())


def _name_dimensions(graph: Any, shapes: Sequence[Sequence[int | str]]) -> None:
    """Give a graph's dimensions the names of its inputs' shapes for the trace's symbols."""
    dims = [value.type.tensor_type.shape.dim for value in graph.input]
    names = {
        dim.dim_param: size
        for given, shape in zip(dims, shapes, strict=False)
        for dim, size in zip(given, shape, strict=True)
        if dim.dim_param and isinstance(size, str)
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def load_onnx(path: Path) -> Run:
    """Load an ONNX file by onnxruntime, on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider']
    )
    names = [i.name for i in session.get_inputs()]

    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        given = {n: t.numpy() for n, t in zip(names, tensors, strict=True)}
        return tuple(map(torch.from_numpy, session.run(None, given)))

    return run


def write_safetensors(state: dict[str, Tensor], path: Path, metadata: dict) -> None:
    """Write tensors by name, each with a storage of its own."""
    own = {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}
    save_file(
        own, path, metadata={'format': 'pt', KEY: json.dumps(metadata, allow_nan=False)}
    )


@contextmanager
def traceable(model: nn.Module) -> Iterator[None]:
    """Make a model's layers run as plain code, and its necks uncompiled."""
    # torch's layers have one kernel of their own for inference, which no format has.
    fast = torch.backends.mha.get_fastpath_enabled()
    options = {
        m: m.compile_options for m in model.modules() if isinstance(m, LLMBlockNeck)
    }
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for neck in options:
            neck.compile_options = None
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for neck, before in options.items():
            neck.compile_options = before


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
    names = {name for varying in axes for name in varying.values()}
    dims = {
        name: torch.export.Dim(name, max=(limits or {}).get(name)) for name in names
    }
    shapes = tuple({i: dims[name] for i, name in varying.items()} for varying in axes)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.export.export(function, tuple(tensors), dynamic_shapes=(shapes,))


def output_axes(
    program: Program, axes: Sequence[Mapping[int, str]]
) -> list[dict[int, str]]:
    """Return the dimensions of each output that vary, named as those of the inputs.

    Args:
        program (ExportedProgram): A trace.
        axes (Sequence[Mapping[int, str]]): What it was made with.
    """
    shapes = {
        n.name: getattr(n.meta.get('val'), 'shape', ()) for n in program.graph.nodes
    }
    signature = program.graph_signature
    names = {
        str(shapes[name][i]): size
        for name, varying in zip(signature.user_inputs, axes, strict=True)
        for i, size in varying.items()
    }
    return [
        {
            i: names.get(str(n), str(n))
            for i, n in enumerate(shapes[o])
            if not isinstance(n, int)
        }
        for o in signature.user_outputs
    ]
