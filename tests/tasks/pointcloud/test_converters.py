"""Published names become ours; every key is accounted for."""

from functools import partial

import pytest
import torch

from lm4ve.errors import CheckpointError, UserError
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.image import released as r
from tests.helpers.pointcloud.tiny import build
from tests.helpers.tools import convert_here


def published(model) -> dict:
    """A classifier's state by Point-BERT's names."""
    out = {}
    for key, value in model.state_dict().items():
        key = key.replace('backbone.', '').replace('head.layers', 'cls_head_finetune')
        out[key.replace('blocks.', 'blocks.blocks.')] = value
    return out


@pytest.fixture
def model():
    model = build().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    return model


def convert(tmp_path, state, *args) -> dict:
    content = dict(base_model=state, epoch=3, metrics=dict(acc=1.0))
    return convert_here('pointcloud', tmp_path, content, *args)


@pytest.mark.parametrize('prefix', ['', 'module.', 'base_model.'])
@pytest.mark.bitwise
def test_classifier(prefix, model, tmp_path):
    state = {prefix + k: v for k, v in published(model).items()}
    fresh = build().eval()
    fresh.load_state_dict(convert(tmp_path, state))
    points = torch.randn(2, 40, 3)
    assert torch.equal(fresh(points), model(points))


def test_heads_are_cut_to_the_classes_that_were_used(model, tmp_path):
    state = published(model)
    found = convert(tmp_path, state, '--num-classes', 3)
    assert torch.equal(
        found['head.layers.3.weight'], state['cls_head_finetune.3.weight'][:3]
    )
    with pytest.raises(UserError, match='num-classes=6 must be at most 5'):
        convert(tmp_path, state, '--num-classes', 6)


PRETRAINED = [
    (
        'transformer_q.',
        'transformer_q.mask_token transformer_k.norm.bias dvae.codebook.weight',
    ),
    ('MAE_encoder.', 'MAE_decoder.norm.weight mask_token increase_dim.0.weight'),
]


@pytest.mark.parametrize('prefix, others', PRETRAINED)
def test_pretraining_gives_the_encoder(prefix, others, model, tmp_path):
    state = {prefix + k: v for k, v in published(model).items() if 'cls_head' not in k}
    state.update({k: torch.zeros(1) for k in others.split()})
    found = convert(tmp_path, state)
    expected = {k: v for k, v in model.state_dict().items() if 'head' not in k}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with pytest.raises(CheckpointError, match='unknown.*projector'):
        convert(tmp_path, dict(state, projector=torch.zeros(1)))


def test_block_is_compared_and_left_out(model, tmp_path):
    llm, layers = r.write_llm(tmp_path / 'llm')
    state = r.llama_state([layers[-1]], partial(published, model), 12)
    block = dict(type='LLMBlock', checkpoint=llm)
    neck = dict(
        type='LLMBlockNeck', in_channels=12, norm_cfg=dict(type='LN'), block=block
    )
    ours = build(neck=neck).eval()
    ours.load_state_dict(convert(tmp_path, state, '--llm', llm))
    points = torch.randn(2, 40, 3)
    # The same by hand: trunk without its norm, block, norm, head.
    plain = model.backbone
    norm, plain.norm = plain.norm, None
    x = plain(points) @ state['llama_dim_mapper1.weight'].T
    x = ours.neck.block(x) @ state['llama_dim_mapper2.weight'].T
    assert_equal_but_for_rounding(ours(points), model.head(norm(x)), ours)
