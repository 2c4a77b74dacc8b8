"""Write a traced model as a file, and run the file as its users will."""

import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lm4ve.errors import UserError, listing
from lm4ve.release.metadata import KEY, as_text
from lm4ve.release.tracing import unknown_operators, users_of

#: What a loaded file is: tensors in, tensors out.
Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
Program = torch.export.ExportedProgram
# A file in protobuf's format ends there; some room for the graph.
_ONNX_BYTES = 2_000_000_000


def write_torch_export(
    program: Program, path: Path, metadata: dict, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Write what ``torch.export.load`` reads, with the metadata as an extra file."""
    buffer = io.BytesIO()  # of a path torch wants an ending that a temporary file lacks
    torch.export.save(program, buffer, extra_files={f'{KEY}.json': as_text(metadata)})
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
    program: Program, path: Path, metadata: dict, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Write an ONNX file.

    Raises:
        UserError: onnxscript is missing, ONNX lacks an operator, or a file cannot hold it.
    """
    _require('onnxscript')
    size = sum(
        t.nbytes
        for t in [*program.state_dict.values(), *program.constants.values()]
        if isinstance(t, Tensor)
    )
    if size > _ONNX_BYTES:
        raise UserError(
            f'The model has {size / 1e9:.1f} GB of weights, and an ONNX file ends at 2 GB. Fix: '
            '--format torch-export, or fewer layers in model.neck.block.'
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            made: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=inputs, output_names=outputs
            )
    except Exception as e:  # the exporter's errors are private classes
        operators = unknown_operators(e)
        if not operators:
            raise
        users = [name for operator in operators for name in users_of(program, operator)]
        raise UserError(
            f'ONNX has no conversion of the operator {listing(operators)}, which '
            f'{listing(users) or "the model"} uses. Fix: --format torch-export keeps it; or '
            'compute the same in that module with other operators.'
        ) from e
    made.model.metadata_props[KEY] = as_text(metadata)
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
    """Load an ONNX file by onnxruntime, on the CPU.

    Raises:
        UserError: onnxruntime is missing, or has no kernel for a type in the file.
    """
    ort: Any = _require('onnxruntime')
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as e:  # onnxruntime's errors are of a private module
        reason = str(e).strip().splitlines()[0]
        raise UserError(
            f'onnxruntime cannot run the file: {reason}. Fix: a block in 16 bits needs kernels '
            'that it lacks on a CPU; --cfg-options model.neck.block.dtype=float32.'
        ) from e
    names = [i.name for i in session.get_inputs()]

    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        given = {n: t.numpy() for n, t in zip(names, tensors, strict=True)}
        return tuple(map(torch.from_numpy, session.run(None, given)))

    return run


def write_safetensors(state: dict[str, Tensor], path: Path, metadata: dict) -> None:
    """Write tensors by name, each with a storage of its own."""
    own = {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}
    save_file(own, path, metadata={'format': 'pt', KEY: as_text(metadata)})


def _require(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as e:
        raise UserError(
            f'--format onnx needs {name}, which cannot be imported ({e}). Fix: '
            'pip install "lm4ve[export]".'
        ) from e
