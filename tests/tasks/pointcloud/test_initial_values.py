"""What Point-BERT and Point-MAE start from where no pre-training replaces it."""

import math

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from tests.helpers.necks.initial_values import assert_normal, assert_uniform
from tests.helpers.tasks import CONFIGS


def initialized(name: str) -> nn.Module:
    """Build the model of a config without its pre-training, and initialize it."""
    cfg = Config.fromfile(CONFIGS / f'pointcloud/{name}.py')
    cfg.model.checkpoint = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers and the point-wise convolutions of a module by name."""
    layers = {}
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d)):
            layers[name] = layer
    return layers


def assert_torch_default(layers: dict[str, nn.Module]) -> None:
    """Check that weights and biases are uniform within 1 / sqrt(inputs)."""
    for name, layer in layers.items():
        limit = 1 / math.sqrt(layer.weight[0].numel())
        assert_uniform(f'{name}.weight', layer.weight, limit)
        if layer.bias is not None:
            assert_uniform(f'{name}.bias', layer.bias, limit)


def assert_norms_do_nothing(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, (nn.LayerNorm, nn.BatchNorm1d)):
            assert layer.weight.eq(1).all()
            assert layer.bias.eq(0).all()


def test_pointbert_starts_as_torch_makes_it():
    model = initialized('pointbert_scanobjectnn-hardest')
    layers = linear_layers(model)
    # Of the PointNet, the positions, twelve blocks and the classifier.
    assert len(layers) == 5 + 2 + 12 * 4 + 2
    assert_torch_default(layers)
    assert_norms_do_nothing(model)
    assert model.backbone.cls_token.eq(0).all()
    assert_normal('cls_pos', model.backbone.cls_pos, 1.0)


def test_pointmae_starts_with_a_class_token_that_its_pretraining_lacks():
    model = initialized('pointmae_scanobjectnn-hardest')
    assert_torch_default(linear_layers(model.head))
    assert_norms_do_nothing(model)
    assert_normal('cls_token', model.backbone.cls_token, 0.02)
    assert_normal('cls_pos', model.backbone.cls_pos, 0.02)
