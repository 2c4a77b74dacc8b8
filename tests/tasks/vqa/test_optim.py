"""Rates and decay of METER's groups, by hand, and what the constructor refuses."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from lm4ve.errors import UserError
from lm4ve.tasks.vqa.optim import group_of
from tests.tasks.vqa.tiny import build

WRAPPER = dict(
    type='OptimWrapper',
    constructor='lm4ve.METEROptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
    paramwise_cfg=dict(head=50, cross_modal=5, neck=10),
)
RETRIEVAL = dict(type='lm4ve.RetrievalHead', in_channels=32, itm=dict(frozen=False))


def rates(model, **changes):
    """Parameter name -> (rate, decay), after a build of the optimizer."""
    wrapper = build_optim_wrapper(model, {**WRAPPER, **changes})
    found = {
        id(p): (g['lr'], g['weight_decay'])
        for g in wrapper.optimizer.param_groups
        for p in g['params']
    }
    return {n: found[id(p)] for n, p in model.named_parameters() if p.requires_grad}


def test_groups_are_meters():
    got = rates(build(neck=True))
    expected = {
        'image_encoder.model.embeddings.class_embedding': (1, 0.1),
        'image_encoder.model.encoder.layers.0.layer_norm1.weight': (1, 0.1),  # CLIP's decay
        'image_encoder.model.encoder.layers.0.layer_norm1.bias': (1, 0),
        'image_encoder.model.post_layernorm.weight': (1, 0.1),
        'text_encoder.model.embeddings.LayerNorm.weight': (1, 0),
        'text_encoder.model.embeddings.word_embeddings.weight': (1, 0.1),
        'token_types.weight': (1, 0.1),
        'image_transform.weight': (5, 0.1),
        'text_pooler.dense.bias': (5, 0),
        'fusion.image_layers.1.output.LayerNorm.weight': (5, 0),
        'fusion.text_layers.0.crossattention.self.query.weight': (5, 0.1),
        'neck.mapper_in.weight': (10, 0.1),
        'head.layers.0.weight': (50, 0.1),
        'head.layers.1.weight': (50, 0.1),  # the answer head's norm decays too
        'head.layers.3.bias': (50, 0),
    }
    assert {name: got[name] for name in expected} == expected
    assert set(got) == {n for n, _ in build(neck=True).named_parameters()}


def test_rank_output_stays_at_the_base_rate():
    got = rates(build(head=RETRIEVAL), paramwise_cfg=dict(head=5))
    assert got['head.rank_output.weight'] == (1, 0.1) and got['head.itm.fc.weight'] == (5, 0.1)


def test_frozen_parameters_are_in_no_group():
    model = build()
    model.text_encoder.requires_grad_(False)
    assert not any(name.startswith('text_encoder') for name in rates(model))


@pytest.mark.parametrize('wrapper', ['module', '_orig_mod', '_fsdp_wrapped_module'])
def test_wrappers_do_not_change_groups(wrapper):
    for name in ('fusion.{}.text_layers.0.output.dense.weight', 'image_pooler.dense.weight'):
        assert group_of(f'{wrapper}.{name.format(wrapper)}') == ('cross_modal', True)


@pytest.mark.parametrize('wrong', [dict(crossmodal=5), dict(head='fast')])
def test_wrong_multipliers_are_refused(wrong):
    with pytest.raises(UserError, match='paramwise_cfg'):
        rates(build(), paramwise_cfg=wrong)


def test_other_models_are_refused():
    with pytest.raises(UserError, match='groups of the fusion=0'):
        rates(torch.nn.Linear(2, 2))
