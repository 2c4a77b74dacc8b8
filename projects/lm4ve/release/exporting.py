"""From a config and a checkpoint to a file that was compared with the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

from lm4ve.analysis.loading import load_model
from lm4ve.blocks.provenance import ProvenanceMixin
from lm4ve.errors import UserError
from lm4ve.files import replacing
from lm4ve.llm.torch_files import read_safetensors
from lm4ve.necks.fusing import fuse
from lm4ve.release import formats
from lm4ve.release.states import frozen_state, trained_state, without_folder
from lm4ve.release.tracing import output_axes, trace, traceable, varying_axes
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.building import collate
from lm4ve.tasks.base.export import Exported, TaskExport, as_tuple
from lm4ve.version import __version__

#: Format -> the ending of its files.
FORMATS = {'onnx': '.onnx', 'torch-export': '.pt2', 'safetensors': '.safetensors'}
_WRITERS = {
    'onnx': (formats.write_onnx, formats.load_onnx),
    'torch-export': (formats.write_torch_export, formats.load_torch_export),
}
#: Samples of the example that is traced.
_EXAMPLE = 2
#: Sizes of the batches that are compared.
_CHECKED = (1, 3)


class Written(NamedTuple):
    """What :func:`export_model` wrote.

    Attributes:
        path (Path): The file.
        size (int): Its bytes.
        metadata (dict): Its description, see :func:`metadata_of`.
        difference (float): From the model: the largest one of an output, by that
            output's largest value where that is above 1. 0 for safetensors, which are
            compared bit by bit.
    """

    path: Path
    size: int
    metadata: dict[str, Any]
    difference: float


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
) -> Written:
    """Export a model of any task.

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.read_config`.
        checkpoint (str): Its checkpoint, or 'none' for untrained weights.
        format (str): A key of :data:`FORMATS`.
        path (str | Path): The file to write.
        overwrite (bool): It may exist.
        tolerance (float): A file that differs from the model by more is not kept.
        with_block (bool): safetensors hold the frozen block's weights too.
        allow_partial (bool): Load what fits of a checkpoint of another model.

    Raises:
        UserError: The path exists, or the file differs from the model.
        CheckpointError: The checkpoint is missing, damaged, or of another model.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(
            f"'{path}' exists. Fix: --overwrite, or another file with --out."
        )
    export = task_of_config(cfg).export
    model, classes = load_model(cfg, checkpoint, 'cpu', allow_partial)
    export.prepare(model)
    metadata = metadata_of(export, model, cfg, checkpoint, classes)
    with replacing(path) as beside:
        if format == 'safetensors':
            difference = 0.0
            _write_weights(model, beside, metadata, with_block)
        else:
            function = _trace_and_write(export, model, cfg, format, beside, metadata)
            difference = _compare(function, export, model, cfg, tolerance)
    return Written(path, path.stat().st_size, metadata, difference)


def _trace_and_write(
    export: TaskExport,
    model: nn.Module,
    cfg: Config,
    format: str,
    path: Path,
    metadata: dict,
) -> formats.Run:
    """Write a file; return what it computes. The metadata gets the inputs and outputs."""
    write, load = _WRITERS[format]
    model = fuse(model)
    tensors = export.tensors(model, collate(cfg, export.samples(cfg, _EXAMPLE)))
    axes = varying_axes(tensors, export.all_axes())
    function = Exported(export, model).eval()
    with traceable(model), torch.no_grad():
        outputs = function(*tensors)
        program = trace(function, tensors, axes, export.limits(model))
        metadata['inputs'] = describe_tensors(export.inputs, tensors, axes)
        metadata['outputs'] = describe_tensors(
            export.outputs, outputs, output_axes(program, axes)
        )
        write(program, path, metadata, list(export.inputs), list(export.outputs))
    return load(path)


def _compare(
    run: formats.Run,
    export: TaskExport,
    model: nn.Module,
    cfg: Config,
    tolerance: float,
) -> float:
    """Compare a file with the model at batch sizes that the trace has not seen.

    Raises:
        UserError: They differ by more than the tolerance.
    """
    samples = export.samples(cfg, max(_CHECKED))
    largest = 0.0
    for count in _CHECKED:
        tensors = export.tensors(model, collate(cfg, samples[:count]))
        with torch.no_grad():
            # A batch of its own, since models change the one that they get.
            batch = collate(cfg, samples[:count])
            expected = as_tuple(export.expected(model, batch))
        difference = largest_difference(expected, run(tensors))
        is_close = difference <= tolerance  # not of NaN
        if not is_close:
            raise UserError(
                f'The exported file differs from the model by {difference:.2g} at a batch of '
                f'{count} and was not kept. Fix: --tolerance, or model.neck.block.dtype=float32.'
            )
        largest = max(largest, difference)
    return largest


def largest_difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Return how far outputs are apart, relative to values above 1; NaN if one is not finite."""
    if [t.shape for t in expected] != [t.shape for t in got]:
        return float('inf')
    largest = 0.0
    for a, b in zip(expected, got, strict=True):
        if not a.isfinite().all() or not b.isfinite().all():
            return float('nan')
        difference = (a.double() - b.double()).abs().max()
        scale = a.double().abs().max().clamp_min(1.0)
        largest = max(largest, float(difference / scale))
    return largest


def _write_weights(
    model: nn.Module, path: Path, metadata: dict, with_block: bool
) -> None:
    """Write a model's state, and look whether it comes back as it was.

    Raises:
        UserError: It does not.
    """
    state = trained_state(model)
    if with_block:
        frozen, _ = frozen_state(model)
        state.update(frozen)
    formats.write_safetensors(state, path, metadata)
    again = read_safetensors(path)['state_dict']
    is_whole = state.keys() == again.keys()
    if not is_whole or not all(torch.equal(state[k], again[k]) for k in state):
        raise UserError(f"'{path}' does not hold what was written.")


def metadata_of(
    export: TaskExport, model: nn.Module, cfg: Config, checkpoint: str, classes: Any
) -> dict[str, Any]:
    """Describe a model in plain data.

    Args:
        export (TaskExport): The task's hooks.
        model (nn.Module): The model.
        cfg (Config): Its config.
        checkpoint (str): Where its weights come from; only the file's name is kept.
        classes (Sequence[str], optional): Names of its classes, if known.
    """
    blocks = {}
    for name, module in model.named_modules():
        if isinstance(module, ProvenanceMixin):
            blocks[name] = without_folder(module.source)
    return dict(
        version=__version__,
        task=export.task.name,
        config=Path(cfg.filename).name,
        checkpoint=Path(checkpoint).name,
        classes=None if classes is None else list(classes),
        blocks=blocks,
        **export.meaning(model, cfg),
    )


def describe_tensors(
    meanings: Mapping[str, str],
    tensors: Sequence[Tensor],
    axes: Sequence[Mapping[int, str]],
) -> list[dict[str, Any]]:
    """Describe inputs or outputs: name, type, shape (a word where it varies), meaning."""
    described = []
    for i, (name, meaning) in enumerate(meanings.items()):
        shape = [axes[i].get(dim, size) for dim, size in enumerate(tensors[i].shape)]
        described.append(
            dict(
                name=name,
                dtype=str(tensors[i].dtype).removeprefix('torch.'),
                shape=shape,
                meaning=meaning,
            )
        )
    return described
