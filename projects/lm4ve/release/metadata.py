"""What an exported file says of itself: inputs, outputs, classes, the block's record."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from lm4ve.blocks.provenance import ProvenanceMixin
from lm4ve.release.release import without_folder
from lm4ve.tasks.base.export import TaskExport
from lm4ve.version import __version__

#: The key of the metadata in every format.
KEY = 'lm4ve'


def metadata_of(
    export: TaskExport,
    model: nn.Module,
    cfg: Config,
    checkpoint: str,
    classes: Sequence[str] | None,
) -> dict[str, Any]:
    """Describe a model in plain data.

    Args:
        export (TaskExport): What its task says.
        model (nn.Module): The model.
        cfg (Config): Its config.
        checkpoint (str): Where its weights come from; only the file's name is kept.
        classes (Sequence[str], optional): Names of its classes, if known.
    """
    blocks = {
        name: dict(without_folder(block.source))
        for name, block in model.named_modules()
        if isinstance(block, ProvenanceMixin)
    }
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
    told: Mapping[str, str], tensors: Sequence[Tensor], axes: Sequence[Mapping[int, str]]
) -> list[dict[str, Any]]:
    """Describe inputs or outputs: name, type, shape (a word where it varies), meaning."""
    return [
        dict(
            name=name,
            dtype=str(tensor.dtype).removeprefix('torch.'),
            shape=[varying.get(i, size) for i, size in enumerate(tensor.shape)],
            meaning=meaning,
        )
        for (name, meaning), tensor, varying in zip(told.items(), tensors, axes, strict=True)
    ]


def as_text(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON, which no reader has to execute."""
    return json.dumps(metadata, allow_nan=False)
