"""Exports a model to a file that is checked against the model before it is kept."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

from lm4ve.analysis.loading import load_with_content
from lm4ve.blocks import LLMBlock
from lm4ve.errors import UserError
from lm4ve.files import replacing
from lm4ve.llm.torch_files import read_safetensors
from lm4ve.necks.fusing import fuse
from lm4ve.release import formats
from lm4ve.release.states import frozen_state, trained_state, without_folder
from lm4ve.release.tracing import output_axes, trace, traceable, varying_axes
from lm4ve.runner.trained_config import portable_parts
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.building import classes_of, collate
from lm4ve.tasks.base.protocol import TaskProtocol
from lm4ve.version import __version__

#: Format -> the ending of its files.
FORMATS = {'onnx': '.onnx', 'torch-export': '.pt2', 'safetensors': '.safetensors'}
#: Format -> the packages of the extra `export` that it needs.
_PACKAGES = {'onnx': ('onnx', 'onnxscript', 'onnxruntime')}
#: Format -> the functions that write and load its files.
_WRITERS = {
    'onnx': (formats.write_onnx, formats.load_onnx),
    'torch-export': (formats.write_torch_export, formats.load_torch_export),
}
#: The batch size of the example that is traced.
_EXAMPLE = 2
#: The batch sizes at which a file is compared with the model.
_CHECKED = (1, 3)


class Written(NamedTuple):
    """What :func:`export_model` wrote.

    Attributes:
        path (Path): The file.
        size (int): Its bytes.
        metadata (dict): Its description, see :func:`metadata_of`.
        difference (float): How far the file's outputs are from the model's, see
            :func:`largest_difference`. 0 for safetensors, whose tensors are compared bit
            by bit.
    """

    path: Path
    size: int
    metadata: dict[str, Any]
    difference: float


class Exported(nn.Module):
    """A model as a function of tensors.

    Args:
        protocol (TaskProtocol): The task's.
        model (nn.Module): The model, in evaluation mode.
    """

    def __init__(self, protocol: TaskProtocol, model: nn.Module) -> None:
        super().__init__()
        self.protocol = protocol
        self.model = model

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, one for each name of :attr:`TaskProtocol.outputs`."""
        return _as_tuple(self.protocol.forward(self.model, *tensors))


def _as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return one output or several as a tuple."""
    if isinstance(outputs, Tensor):
        return (outputs,)
    return tuple(outputs)


def check_packages(format: str) -> None:
    """Check that the packages that write and run a format's files are installed.

    Args:
        format (str): A key of :data:`FORMATS`.

    Raises:
        UserError: Some are not; the message names them, and the extra that has them.
    """
    missing = [name for name in _PACKAGES.get(format, ()) if find_spec(name) is None]
    if missing:
        raise UserError(
            f'--format {format} needs packages that are not installed: '
            f'{", ".join(missing)}. Fix, in the clone: pip install -e ".[export]"'
        )


def export_model(
    cfg: Config,
    checkpoint: str,
    format: str,
    path: str | Path,
    *,
    overwrite: bool = False,
    tolerance: float = 1e-4,
    with_block: bool = False,
    allow_partial: bool = False,
    strict_config: bool = False,
) -> Written:
    """Export a model of any task to a file, and check the file.

    A traced format ('onnx', 'torch-export') is run as its users will run it, and its
    outputs are compared with the model's; safetensors are read again and compared bit
    by bit. Unless the check passes, no file is left.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
        checkpoint (str): Its checkpoint, or 'none' for untrained weights.
        format (str): A key of :data:`FORMATS`.
        path (str | Path): The file to write.
        overwrite (bool): Replace the file if it exists.
        tolerance (float): The largest difference from the model, see
            :func:`largest_difference`, with which a traced file is kept.
        with_block (bool): safetensors also hold the weights of frozen blocks. Traced
            formats always hold them.
        allow_partial (bool): Load what fits of a checkpoint of another model.
        strict_config (bool): Raise an error, not a warning, if the checkpoint was trained
            with another model or preprocessing, or does not say so.

    Raises:
        UserError: The path exists, or the file differs from the model.
        CheckpointError: The checkpoint is missing, damaged, or of another model.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(
            f"'{path}' exists. Fix: --overwrite, or another file with --out."
        )
    protocol = task_of_config(cfg).protocol
    model, content = load_with_content(
        cfg, checkpoint, 'cpu', allow_partial, strict_config
    )
    classes = classes_of(cfg, content)
    protocol.prepare(model)
    metadata = metadata_of(protocol, model, cfg, checkpoint, classes)
    # An error below leaves `path` as it was: the file is written beside it, and replaces
    # it at the end.
    with replacing(path) as beside:
        if format == 'safetensors':
            difference = 0.0
            # By it, whoever loads the file is told what the training had otherwise.
            metadata['cfg'] = portable_parts(content)
            _write_and_verify_weights(model, beside, metadata, with_block)
        else:
            run_file = _trace_and_write(protocol, model, cfg, format, beside, metadata)
            difference = _compare(run_file, protocol, model, cfg, tolerance)
    return Written(path, path.stat().st_size, metadata, difference)


def _trace_and_write(
    protocol: TaskProtocol,
    model: nn.Module,
    cfg: Config,
    format: str,
    path: Path,
    metadata: dict,
) -> formats.Run:
    """Trace a model, write the file, and return a function that runs the written file.

    Args:
        protocol (TaskProtocol): The task's.
        model (nn.Module): The model; a copy of it is fused.
        cfg (Config): Its config.
        format (str): 'onnx' or 'torch-export'.
        path (Path): The file to write.
        metadata (dict): The model's description; 'inputs' and 'outputs' are added.
    """
    write, load = _WRITERS[format]
    model = fuse(model)
    samples = [protocol.example(cfg, number) for number in range(_EXAMPLE)]
    tensors = protocol.tensors(model, collate(cfg, samples))
    axes = varying_axes(tensors, protocol.all_axes())
    function = Exported(protocol, model).eval()
    with traceable(), torch.no_grad():
        outputs = function(*tensors)
        program = trace(function, tensors, axes, protocol.limits(model))
        metadata['inputs'] = describe_tensors(protocol.inputs, tensors, axes)
        metadata['outputs'] = describe_tensors(
            protocol.outputs, outputs, output_axes(program, axes)
        )
        write(program, path, metadata, list(protocol.inputs), list(protocol.outputs))
    return load(path)


def _compare(
    run: formats.Run,
    protocol: TaskProtocol,
    model: nn.Module,
    cfg: Config,
    tolerance: float,
) -> float:
    """Compare a file's outputs with the model's at batch sizes that the trace has not seen.

    Args:
        run (Callable): Runs the file.
        protocol (TaskProtocol): The task's.
        model (nn.Module): The model.
        cfg (Config): Its config.
        tolerance (float): The largest difference that is accepted.

    Returns:
        float: The largest difference of all batch sizes; see
        :func:`largest_difference`.

    Raises:
        UserError: A difference is larger than the tolerance, or not finite.
    """
    samples = [protocol.example(cfg, number) for number in range(max(_CHECKED))]
    largest = 0.0
    for count in _CHECKED:
        tensors = protocol.tensors(model, collate(cfg, samples[:count]))
        with torch.no_grad():
            # A new batch, since models change the one that they get.
            batch = collate(cfg, samples[:count])
            expected = _as_tuple(protocol.expected(model, batch))
        difference = largest_difference(expected, run(tensors))
        is_close = difference <= tolerance  # False for NaN
        if not is_close:
            raise UserError(
                f'The exported file differs from the model by {difference:.2g} at a batch of '
                f'{count} and was not kept. Fix: --tolerance, or model.neck.block.dtype=float32.'
            )
        largest = max(largest, difference)
    return largest


def largest_difference(expected: Sequence[Tensor], actual: Sequence[Tensor]) -> float:
    """Return the largest difference of outputs, relative to the output's largest value.

    Each output has its own scale: the largest absolute value that is expected of it, or
    1 if that is smaller. So small outputs are compared absolutely.

    Args:
        expected, actual (Sequence[Tensor]): The outputs, in the same order; none is
            empty.

    Returns:
        float: ``inf`` if the number or the shapes of outputs differ; NaN if a value is
        not finite, even where both have it.
    """
    if [t.shape for t in expected] != [t.shape for t in actual]:
        return float('inf')
    largest = 0.0
    for a, b in zip(expected, actual, strict=True):
        if not a.isfinite().all() or not b.isfinite().all():
            return float('nan')
        difference = (a.double() - b.double()).abs().max()
        scale = a.double().abs().max().clamp_min(1.0)
        largest = max(largest, float(difference / scale))
    return largest


def _write_and_verify_weights(
    model: nn.Module, path: Path, metadata: dict, with_block: bool
) -> None:
    """Write a model's state as safetensors, and compare the file's tensors bit by bit.

    Args:
        model (nn.Module): The model.
        path (Path): The file to write.
        metadata (dict): The model's description.
        with_block (bool): Also write the weights of frozen blocks.

    Raises:
        UserError: A tensor that is read again differs from the one that was written.
    """
    state = trained_state(model)
    if with_block:
        frozen, _ = frozen_state(model)
        state.update(frozen)
    formats.write_safetensors(state, path, metadata)
    stored = read_safetensors(path)['state_dict']
    is_whole = state.keys() == stored.keys()
    if not is_whole or not all(torch.equal(state[k], stored[k]) for k in state):
        raise UserError(f"'{path}' does not hold what was written.")


def metadata_of(
    protocol: TaskProtocol, model: nn.Module, cfg: Config, checkpoint: str, classes: Any
) -> dict[str, Any]:
    """Describe a model in plain data.

    Args:
        protocol (TaskProtocol): The task's.
        model (nn.Module): The model.
        cfg (Config): Its config.
        checkpoint (str): Where its weights come from; only the file's name is kept.
        classes (Sequence[str], optional): Names of its classes, if known.
    """
    blocks = {}
    for name, module in model.named_modules():
        if isinstance(module, LLMBlock):
            blocks[name] = without_folder(module.record())
    return dict(
        version=__version__,
        task=protocol.task.name,
        config=Path(cfg.filename).name,
        checkpoint=Path(checkpoint).name,
        classes=None if classes is None else list(classes),
        blocks=blocks,
        **protocol.meaning(model, cfg),
    )


def describe_tensors(
    meanings: Mapping[str, str],
    tensors: Sequence[Tensor],
    axes: Sequence[Mapping[int, str]],
) -> list[dict[str, Any]]:
    """Describe the inputs or the outputs of an export in plain data.

    Args:
        meanings (Mapping[str, str]): Name -> meaning, in the order of the tensors.
        tensors (Sequence[Tensor]): An example of each.
        axes (Sequence[Mapping[int, str]]): Dimension -> name, for those of each tensor
            that vary.

    Returns:
        list[dict]: Name, dtype, shape and meaning of each tensor; the shape has names
        in place of sizes that vary, as in ``['batch', 3, 224, 224]``.
    """
    descriptions = []
    for (name, meaning), tensor, varying in zip(
        meanings.items(), tensors, axes, strict=True
    ):
        shape: list[int | str] = list(tensor.shape)
        for dim, size_name in varying.items():
            shape[dim] = size_name
        description = dict(
            name=name,
            dtype=str(tensor.dtype).removeprefix('torch.'),
            shape=shape,
            meaning=meaning,
        )
        descriptions.append(description)
    return descriptions
