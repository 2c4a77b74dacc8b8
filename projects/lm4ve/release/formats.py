"""The formats of files: each is written, and run as its users will run it."""

import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lm4ve.release.tracing import Program

#: The key of the metadata in every format.
KEY = 'lm4ve'
#: What a loaded file is: tensors in, tensors out.
Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


def write_torch_export(
    program: Program,
    path: Path,
    metadata: dict,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Write a file for ``torch.export.load``, with the metadata in it as an extra file.

    Args:
        program (ExportedProgram): The traced model.
        path (Path): The file to write.
        metadata (dict): The model's description, plain data.
        inputs, outputs (Sequence[str]): Not used, but part of every writer's signature:
            this format names them in the metadata alone.
    """
    # Into memory first, since torch refuses a path that does not end in '.pt2'.
    buffer = io.BytesIO()
    text = json.dumps(metadata, allow_nan=False)
    torch.export.save(program, buffer, extra_files={f'{KEY}.json': text})
    path.write_bytes(buffer.getbuffer())


def load_torch_export(path: Path) -> Run:
    """Load a file of :func:`write_torch_export`, and return a function that runs it.

    Raises:
        ValueError: The file holds no metadata, or damaged ones.
    """
    extra = {f'{KEY}.json': ''}
    # From memory, since torch refuses a path that does not end in '.pt2'.
    content = io.BytesIO(path.read_bytes())
    module = torch.export.load(content, extra_files=extra).module()
    _check_metadata(extra[f'{KEY}.json'])

    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(module(*tensors))

    return run


def _check_metadata(text: str) -> None:
    """Check that the metadata of a file can be read.

    Raises:
        ValueError: The text is no JSON.
    """
    json.loads(text)


def write_onnx(
    program: Program,
    path: Path,
    metadata: dict,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Write an ONNX file, with the metadata among its properties.

    Args:
        program (ExportedProgram): The traced model.
        path (Path): The file to write.
        metadata (dict): The model's description, plain data. The shapes in its 'inputs'
            name the dimensions.
        inputs, outputs (Sequence[str]): The names of the tensors.

    Raises:
        Exception: ONNX lacks an operator of the model; torch's exporter names it.
    """
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
    made.model.producer_name = KEY
    made.model.producer_version = metadata['version']
    proto = made.model_proto
    shapes = [described['shape'] for described in metadata.get('inputs', ())]
    _name_dimensions(proto.graph, shapes)
    path.write_bytes(proto.SerializeToString())


def _name_dimensions(graph: Any, shapes: Sequence[Sequence[int | str]]) -> None:
    """Rename the varying dimensions of a graph: 's0' of the trace becomes 'batch'.

    Args:
        graph (GraphProto): The ONNX graph; it is changed, outputs and inner values too.
        shapes (Sequence[Sequence[int | str]]): The shape of each input, with a name for
            each varying dimension.
    """
    names = {}
    # Metadata may describe no inputs; their dimensions keep the trace's names.
    for value, shape in zip(graph.input, shapes, strict=False):
        for dim, size in zip(_dimensions_of(value), shape, strict=True):
            if dim.dim_param and isinstance(size, str):
                names[dim.dim_param] = size
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in _dimensions_of(value):
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _dimensions_of(value: Any) -> Any:
    """Return the dimensions of an input, an output or an inner value of an ONNX graph."""
    return value.type.tensor_type.shape.dim


def load_onnx(path: Path) -> Run:
    """Load an ONNX file, and return a function that runs it by onnxruntime on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider']
    )
    names = [i.name for i in session.get_inputs()]

    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        arrays = [tensor.numpy() for tensor in tensors]
        outputs = session.run(None, dict(zip(names, arrays, strict=True)))
        return tuple(torch.from_numpy(output) for output in outputs)

    return run


def write_safetensors(state: dict[str, Tensor], path: Path, metadata: dict) -> None:
    """Write tensors by name, with the metadata in the file's header.

    Args:
        state (dict[str, Tensor]): Tensors by name; some may share memory.
        path (Path): The file to write.
        metadata (dict): The model's description, plain data.
    """
    copies = {}
    for name, tensor in state.items():
        # safetensors refuses tensors that share memory.
        copies[name] = tensor.detach().cpu().clone().contiguous()
    text = json.dumps(metadata, allow_nan=False)
    save_file(copies, path, metadata={'format': 'pt', KEY: text})
