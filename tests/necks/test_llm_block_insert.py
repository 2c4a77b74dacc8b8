"""A block at any place inside an encoder, with the encoder's names unchanged."""

import pytest
import torch
from mmengine.registry import MODELS

import lm4ve  # noqa: F401
from lm4ve.necks import LLMBlockInsert
from tests.necks.encoder import ARCH

pytest.importorskip('mmpretrain')

NECK = dict(type='LLMBlockNeck', in_channels=16, block=dict(type='LLMBlock', arch=ARCH))
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
    img_size=16,
    patch_size=8,
    out_type='raw',
)


def insert(after: str, backbone=VIT, **kwargs):
    torch.manual_seed(0)
    model = LLMBlockInsert(backbone=backbone, after=after, neck={**NECK, **kwargs})
    model.eval()  # mmpretrain's does not return the model
    return model


def test_names_of_the_encoders_weights_stay():
    plain = MODELS.build(VIT)
    model = insert('layers.1')
    own = {k for k in model.state_dict() if not k.startswith('llm_neck.')}
    assert own == set(plain.state_dict())
    assert model.get_layer_depth('layers.1.ln1.weight') == plain.get_layer_depth(
        'layers.1.ln1.weight'
    )


@pytest.mark.parametrize(
    'after, layers_before', [('drop_after_pos', 0), ('layers.1', 2), ('layers.2', 3)]
)
def test_the_named_output_goes_through_the_neck(after, layers_before):
    model = insert(after)
    x = torch.randn(2, 3, 16, 16)
    plain = MODELS.build(VIT)
    plain.eval()
    own = model.state_dict()
    plain.load_state_dict({k: own[k] for k in plain.state_dict()})
    tokens = plain.patch_embed(x)[0]
    tokens = torch.cat([plain.cls_token.expand(2, -1, -1), tokens], dim=1)
    tokens = tokens + plain.pos_embed
    for layer in plain.layers[:layers_before]:
        tokens = layer(tokens)
    tokens = model.llm_neck(tokens)
    for layer in plain.layers[layers_before:]:
        tokens = layer(tokens)
    torch.testing.assert_close(model(x)[0], plain.ln1(tokens))


def test_maps_inside_a_cnn():
    resnet = dict(type='mmpretrain.ResNet', depth=18, base_channels=4, stem_channels=4)
    model = insert('layer2', backbone=resnet, in_channels=8)
    assert model(torch.randn(1, 3, 32, 32))[0].shape == (1, 32, 1, 1)


def test_no_norm_unless_asked():
    assert insert('layers.0').llm_neck.norm is None
    neck = insert('layers.0', norm_cfg=dict(type='LN')).llm_neck
    assert neck.norm is not None
