"""Encoders of configs: the backbone of a model of ours, or of OpenMMLab's."""

import copy
import json
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image
from torch import Tensor, nn

from lm4ve.analysis.loading import load_model
from lm4ve.errors import UserError, check
from lm4ve.probing.encoders.encoder import EncoderParts, FrozenModel
from lm4ve.probing.pictures import holds_rgb
from lm4ve.runner.config import merge_options, read_config
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.analysis import prefix_of, tested_dataset
from lm4ve.tasks.base.batches import pipeline_of
from lm4ve.tasks.base.building import collate

#: Backbones of mmpretrain that give tokens as ``[B, C, N]``.
_CHANNELS_FIRST = ('MlpMixer', 'EfficientFormer')


def load_config_model(
    name: str, checkpoint: str | None, size: int | None
) -> EncoderParts:
    """Build the backbone of a config's model.

    Args:
        name (str): The file or name of the config.
        checkpoint (str, optional): Weights of its model; 'none': untrained.
        size (int, optional): Pixels a side. Default: the config's.

    Raises:
        UserError: There is no such config, no checkpoint, or it is of another task.
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another
            model.
    """
    cfg = read_config(name)
    if size is not None:
        merge_options(cfg, dict(image_size=size))
    if checkpoint is None:
        raise UserError(
            f"The encoder '{name}' is a config. Fix: --encoder-checkpoint (or none)."
        )
    task = task_of_config(cfg)
    check(f"The task of '{name}'", task.name, choices=('image', 'video', 'pointcloud'))
    model: Any
    model, _ = load_model(cfg, checkpoint, device='cpu')
    _return_all_tokens(model.backbone)

    parts = dict(preprocessor=model.data_preprocessor, backbone=model.backbone)
    facts = [cfg.model.to_dict(), pipeline_of(cfg, False)]
    return EncoderParts(
        module=FrozenModel(nn.ModuleDict(parts), _BackboneRun(cfg, task.name)),
        transform=_PipelineTransform(cfg, task),
        facts=json.dumps(facts, default=str),
        # Video models of several views lose the place of their class tokens.
        prefix=prefix_of(model.backbone, -1),
        kind=task.name,
    )


def _return_all_tokens(backbone: Any) -> None:
    """Set the fields by which hosts' backbones return the class token alone, or the mean."""
    if hasattr(backbone, 'out_type'):
        backbone.out_type = 'raw'
    if hasattr(backbone, 'return_feat_map'):
        backbone.return_feat_map = True


class _BackboneRun:
    """Collates samples, and runs preprocessor and backbone.

    Args:
        cfg (Config): Its ``collate`` joins the samples.
        kind (str): The task's name.
    """

    def __init__(self, cfg: Config, kind: str) -> None:
        self.cfg = cfg
        self.kind = kind

    def __call__(self, parts: Any, samples: list[dict[str, Any]]) -> Any:
        """Return a map or tokens; see :class:`EncoderParts`."""
        data = parts['preprocessor'](collate(self.cfg, samples), False)
        inputs = data['inputs']
        if self.kind != 'video':
            return self._run_backbone(parts['backbone'], inputs)
        views = inputs.shape[1]
        output = self._run_backbone(parts['backbone'], inputs.flatten(0, 1))
        if views > 1:
            return _join_views(output, views)
        return output

    def _run_backbone(self, backbone: Any, inputs: Tensor) -> Any:
        output = backbone(inputs)
        while isinstance(output, (tuple, list)):
            output = output[-1]
        if type(backbone).__name__ in _CHANNELS_FIRST and output.dim() == 3:
            output = output.transpose(1, 2)
        return output


def _join_views(output: Tensor, views: int) -> Tensor:
    """Let the tokens of several clips or frames of a sample follow each other."""
    if output.dim() != 3:
        output = output.flatten(2).transpose(1, 2)
    return output.unflatten(0, (-1, views)).flatten(1, 2)


class _PipelineTransform:
    """Runs a config's test pipeline on a picture, or on a sample of its data set."""

    def __init__(self, cfg: Config, task: Any) -> None:
        self.cfg = cfg
        self.task = task

    def __call__(self, source: Any) -> Any:
        pipeline = pipeline_of(self.cfg, False)
        if not isinstance(source, Image.Image):
            return Compose(pipeline)(copy.deepcopy(source))
        pixels = np.asarray(source)
        if not holds_rgb(str(tested_dataset(self.cfg).type)):
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        return self.task.analysis.read_input(self.cfg, pixels, pipeline)
