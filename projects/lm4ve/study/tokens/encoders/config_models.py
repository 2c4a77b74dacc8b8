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
from lm4ve.runner.config import merge_options, read_config
from lm4ve.study.pictures.reading import holds_rgb
from lm4ve.study.tokens.encoders.encoder import EncoderParts, FrozenModel
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.building import collate
from lm4ve.tasks.base.layouts import prefix_of
from lm4ve.tasks.base.tested import pipeline_of, tested_dataset

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
    facts = [cfg.model.to_dict(), pipeline_of(cfg)]
    return EncoderParts(
        module=FrozenModel(nn.ModuleDict(parts), _BackboneRun(cfg, task.name)),
        transform=_PipelineTransform(cfg, task),
        facts=json.dumps(facts, default=str),
        # Their number does not depend on the count of tokens, which is not known yet. Of
        # several views of a video, only the first begins with them; the class tokens of
        # the others are taken for places.
        prefix=prefix_of(model.backbone, -1),
        kind=task.name,
    )


def _return_all_tokens(backbone: Any) -> None:
    """Make a backbone return all its tokens, where its config asks for one token or a mean."""
    if hasattr(backbone, 'out_type'):
        backbone.out_type = 'raw'
    if hasattr(backbone, 'return_feat_map'):
        backbone.return_feat_map = True


class _BackboneRun:
    """Collates samples, and runs preprocessor and backbone.

    Args:
        cfg (Config): The config, which says how samples are collated.
        kind (str): The name of the task: 'image', 'video' or 'pointcloud'.
    """

    def __init__(self, cfg: Config, kind: str) -> None:
        self.cfg = cfg
        self.kind = kind

    def __call__(self, parts: Any, samples: list[dict[str, Any]]) -> Any:
        """Return the features of a batch of samples.

        Args:
            parts (nn.ModuleDict): 'preprocessor' and 'backbone'.
            samples (list[dict]): Outputs of the config's pipeline.

        Returns:
            Tensor: A map ``[B, C, ...]`` or tokens ``[B, N, C]``.
        """
        batch = collate(self.cfg, samples)
        # MMEngine's preprocessors copy samples to the device of their own last `.to()`,
        # which the `.to()` of a parent does not call.
        device = next(parts['backbone'].parameters()).device
        preprocessor = parts['preprocessor'].to(device)
        data = preprocessor(batch, training=False)
        inputs = data['inputs']
        if self.kind != 'video':
            return self._run_backbone(parts['backbone'], inputs)
        # mmaction2's inputs are [B, views, ...]; the backbone takes views as samples.
        views = inputs.shape[1]
        output = self._run_backbone(parts['backbone'], inputs.flatten(0, 1))
        if views > 1:
            return _join_views(output, views)
        return output

    def _run_backbone(self, backbone: Any, inputs: Tensor) -> Any:
        """Return a backbone's last output: a map ``[B, C, ...]`` or tokens ``[B, N, C]``.

        Backbones return a tuple of stages, which may hold tuples of a map and a class
        token; the last entry is taken each time.
        """
        output = backbone(inputs)
        while isinstance(output, (tuple, list)):
            output = output[-1]
        if type(backbone).__name__ in _CHANNELS_FIRST and output.dim() == 3:
            output = output.transpose(1, 2)
        return output


def _join_views(output: Tensor, views: int) -> Tensor:
    """Concatenate the tokens of all clips or frames of a sample.

    Args:
        output (Tensor): Tokens ``[B * views, N, C]`` or maps ``[B * views, C, ...]``.
        views (int): How many rows in a row are of one sample.

    Returns:
        Tensor: ``[B, views * N, C]``.
    """
    if output.dim() != 3:
        output = output.flatten(2).transpose(1, 2)
    return output.unflatten(0, (-1, views)).flatten(1, 2)


class _PipelineTransform:
    """Runs a config's test pipeline on a picture, or on a sample of its data set.

    Args:
        cfg (Config): The config.
        task (Task): The config's task.
    """

    def __init__(self, cfg: Config, task: Any) -> None:
        self.cfg = cfg
        self.task = task

    def __call__(self, source: Any) -> Any:
        """Return the encoder's input, not collated.

        Args:
            source (Image.Image | dict): A picture in RGB, or what the config's data set
                gives its pipeline, which is not changed.
        """
        pipeline = pipeline_of(self.cfg)
        if not isinstance(source, Image.Image):
            return Compose(pipeline)(copy.deepcopy(source))
        pixels = np.asarray(source)  # [H, W, 3]
        # The pipeline normalizes pixels in the order in which the data set gives them.
        dataset_type = str(tested_dataset(self.cfg).type)
        if not holds_rgb(dataset_type):
            bgr = pixels[..., ::-1]
            pixels = np.ascontiguousarray(bgr)
        return self.task.protocol.read(pixels, self.cfg, pipeline)
