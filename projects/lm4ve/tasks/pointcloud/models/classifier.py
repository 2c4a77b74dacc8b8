"""Encoder, neck and head as one classifier for MMEngine's Runner.

The head reads the class token beside the maximum over the other tokens, so a
neck between encoder and head keeps all tokens (``out_type='raw'``) and applies
the final norm.
"""

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor, BaseModel, BaseModule
from torch import Tensor, nn

from lm4ve.errors import CheckpointError, listing
from lm4ve.llm.finite import check_finite
from lm4ve.registry import MODELS
from lm4ve.runner.checkpoint_files import read_state
from lm4ve.tasks.base.token_neck import build_token_neck
from lm4ve.tasks.pointcloud.structures import PointCloudDataSample


@MODELS.register_module()
class PointCloudPreprocessor(BaseDataPreprocessor):
    """Stack clouds ``[N, 3]`` to a batch ``[B, N, 3]`` on the model's device.

    If the first batch lies far outside of the unit sphere (millimeters?), a warning is
    logged.
    """

    _is_first = True

    def forward(self, data: dict, training: bool = False) -> dict:
        """Stack the clouds of a batch, and move them to the model's device.

        Args:
            data (dict): ``inputs``, a list of ``[N, 3]`` (or ``[B, N, 3]``), and, unless
                the model is exported, ``data_samples``.
            training (bool): Not used.

        Returns:
            dict: ``inputs`` fp32 ``[B, N, 3]``, and copies of ``data_samples`` (None
            without any), which stay where they are.
        """
        inputs = data['inputs']
        if not isinstance(inputs, Tensor):
            inputs = torch.stack(list(inputs))
        if self._is_first:
            self._is_first = False
            _warn_if_not_normalized(inputs)
        samples = data.get('data_samples')
        if samples is not None:
            # Copies, since predictions are added to them.
            samples = [sample.new() for sample in samples]
        return dict(inputs=self.cast_data(inputs).float(), data_samples=samples)


def _warn_if_not_normalized(points: Tensor) -> None:
    """Warn of clouds that lie far outside of the unit sphere, such as some in millimeters."""
    farthest = float(points.abs().max())
    if farthest <= 10:
        return
    text = (
        f'A coordinate is {farthest:.4g}; models expect clouds within the unit sphere. '
        "Fix: dict(type='lm4ve.NormalizeToUnitSphere') in the pipelines."
    )
    print_log(text, logger='current', level=logging.WARNING)


@MODELS.register_module()
class PointClsHead(BaseModule):
    """Classify by the class token and the maximum of the other tokens, through a small MLP.

    Args:
        in_channels (int): C of the tokens.
        num_classes (int): Number of classes.
        hidden (Sequence[int]): Widths between; (256, ) in Point-BERT, (256, 256)
            in Point-MAE.
        norm (bool): Batch norm after each hidden layer, as in Point-MAE.
        dropout (float): After each hidden layer.
        label_smoothing (float): E of the cross-entropy's targets, ``1 - E + E / n`` for the
            true one of n classes and ``E / n`` for each other. Point-BERT's code has ``1 -
            e`` and ``e / (n - 1)``, which is ``E = e * n / (n - 1)``.
        init_cfg (dict, optional): Passed to MMEngine's ``BaseModule``. None leaves the
            layers as torch makes them, as Point-BERT's release does.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden: Sequence[int] = (256,),
        norm: bool = False,
        dropout: float = 0.5,
        label_smoothing: float = 0.2,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        layers: list[nn.Module] = []
        width = 2 * in_channels
        for size in hidden:
            layers.append(nn.Linear(width, size))
            if norm:
                layers.append(nn.BatchNorm1d(size))
            layers.append(nn.ReLU(inplace=True))
            layers.append(nn.Dropout(dropout))
            width = size
        layers.append(nn.Linear(width, num_classes))
        self.layers = nn.Sequential(*layers)
        self.num_classes = num_classes
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[B, 1 + G, C]`` to logits ``[B, classes]``."""
        class_token = tokens[:, 0]
        largest = tokens[:, 1:].amax(dim=1)
        return self.layers(torch.cat((class_token, largest), dim=-1))


@MODELS.register_module()
class PointCloudClassifier(BaseModel):
    """Classify point clouds.

    Args:
        backbone (dict): An encoder ``[B, N, 3] -> [B, 1 + G, C]``.
        head (dict): Config of a module from tokens to logits, with ``loss``.
        neck (dict, optional): Config of a module from tokens to tokens, for example
            LLMBlockNeck.
        checkpoint (str, optional): A checkpoint of this suite (made by
            ``tools/convert_checkpoint.py pointcloud`` of a published one) with the
            encoder that training starts from; see :func:`load_encoder`.
        data_preprocessor (dict): Defaults to :class:`PointCloudPreprocessor`.
        **kwargs: Passed to MMEngine's ``BaseModel``.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: dict | None = None,
        checkpoint: str | None = None,
        data_preprocessor: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(
            data_preprocessor or dict(type='lm4ve.PointCloudPreprocessor'), **kwargs
        )
        self.checkpoint = checkpoint
        self.backbone = MODELS.build(backbone)
        self.neck = build_token_neck(neck)
        self.head = MODELS.build(head)

    def init_weights(self) -> None:
        """Initialize, then load the encoder of ``checkpoint``."""
        super().init_weights()
        if self.checkpoint is not None:
            load_encoder(self, self.checkpoint)

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ):
        """Compute logits, and of them what the mode asks for.

        Args:
            inputs (Tensor): ``[B, N, 3]``.
            data_samples (list[PointCloudDataSample], optional): With
                ``gt_label`` for 'loss'; for 'predict' new ones are made if there are
                none.
            mode (str): 'loss' gives a dict of losses, 'predict' the samples with
                predictions, 'tensor' (or anything else) the logits ``[B, classes]``.
        """
        tokens = self.backbone(inputs)
        if self.neck is not None:
            tokens = self.neck(tokens)
        logits = self.head(tokens)
        if mode == 'loss':
            labels = torch.cat([sample.gt_label for sample in data_samples or ()])
            labels = labels.to(logits.device, non_blocking=True)
            return dict(loss=self.head.loss(logits, labels))
        if mode == 'predict':
            if not data_samples:
                data_samples = [PointCloudDataSample() for _ in range(len(logits))]
            predicted = []
            # All of them at once: a metric would wait for a GPU for each sample.
            for sample, sample_logits in zip(data_samples, logits.cpu(), strict=True):
                predicted.append(sample.set_prediction(sample_logits))
            return predicted
        return logits


#: How the names of the encoder and of its final norm begin.
_ENCODER = ('backbone.', 'neck.norm.')


def load_encoder(model: PointCloudClassifier, path: str) -> None:
    """Load the encoder of a checkpoint, with its final norm and without its head.

    Args:
        model (PointCloudClassifier): The model; its final norm may be the neck's.
        path (str): A checkpoint with the names of :class:`PointCloudClassifier`.

    Raises:
        CheckpointError: The file is missing or damaged, or lacks a tensor of the
            encoder.
        RuntimeError: A tensor has another shape.
    """
    state = read_state(path)
    _move_final_norm(state, to_backbone=model.backbone.norm is not None)
    encoder = {}
    for name, tensor in state.items():
        if name.startswith(_ENCODER):
            encoder[name] = tensor
    lacking = []
    for name in model.state_dict():
        if name.startswith(_ENCODER) and name not in encoder:
            lacking.append(name)
    # In pre-training Point-MAE has no class token: it starts at random.
    refused = set(lacking) - {'backbone.cls_token', 'backbone.cls_pos'}
    if refused:
        raise CheckpointError(
            f"model.checkpoint='{path}' is not of this encoder, it lacks "
            f'{listing(sorted(refused))}. Fix: convert the published checkpoint, and set '
            'model.backbone to its sizes.'
        )
    check_finite(encoder, f"model.checkpoint='{path}'")
    model.load_state_dict(encoder, strict=False)
    text = f"Encoder initialized from '{path}'"
    if lacking:
        text += f', but for {listing(lacking)}'
    print_log(f'{text}.', logger='current')


def _move_final_norm(state: dict[str, Tensor], to_backbone: bool) -> None:
    """Rename the final norm of a checkpoint, in place.

    Args:
        state (dict[str, Tensor]): The checkpoint's tensors.
        to_backbone (bool): The model's final norm is the backbone's; else it is that of a
            neck with a block. The checkpoint's may be either.
    """
    if to_backbone:
        old, new = 'neck', 'backbone'
    else:
        old, new = 'backbone', 'neck'
    for part in ('weight', 'bias'):
        if f'{old}.norm.{part}' in state:
            state[f'{new}.norm.{part}'] = state.pop(f'{old}.norm.{part}')
