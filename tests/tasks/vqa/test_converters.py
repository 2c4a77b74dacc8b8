"""METER's names to ours, and the same logits as a plain computation."""

import json
import re

import pytest
import timm
import torch

from lm4ve.errors import UserError
from lm4ve.tasks.vqa.converters import convert_meter
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.released import numbered, sizes_by_number
from tests.helpers.tools import convert_here
from tests.helpers.vqa import released
from tests.helpers.vqa.tiny import ANSWERS, HEADS, IMAGE, build

#: Four stages, 24 wide at the end.
SWIN = dict(model_name='swin_tiny_patch4_window7_224', img_size=64, window_size=2)
SWIN |= dict(embed_dim=3, depths=(2, 1, 1, 1), num_heads=(1, 1, 2, 2))
INDEX = 'attn.relative_position_index'
WITH_ITM = HEADS | dict(retrieval=HEADS['retrieval'] | dict(itm=dict()))


def model_of(task, **changes):
    return build(head=WITH_ITM[task], **changes).eval()


def inputs(size=32):
    ids = torch.randint(4, 20, (3, 7))
    for row, length in enumerate((7, 5, 3)):
        ids[row, length:] = released.PAD
    return torch.randn(3, 3, size, size), ids


def converted(head, task='auto'):
    state = released.random_state(head)
    return state, convert_meter(state, task=task, vocabulary=ANSWERS)


def pooled(model, image, ids):
    padding = ids == released.PAD
    data = dict(image=image, input_ids=ids[:, None], text_padding=padding[:, None])
    return model(data)[:, 0]


READS = [
    ('vqa', 'vqa', released.answer_logits),
    ('pretrain', 'matching', released.matching_logits),
    ('retrieval', 'retrieval', released.rank_scores),
    ('pretrain', 'retrieval', released.rank_scores),
]


@pytest.mark.parametrize(('head', 'task', 'read'), READS)
@torch.no_grad()
def test_logits_equal_a_plain_computation(head, task, read):
    state, ours = converted(head, task)
    model = model_of(task)
    model.load_state_dict(ours, strict=True)
    image, ids = inputs()
    expected = read(state, released.features(state, image, ids))
    assert_equal_but_for_rounding(
        model.head(pooled(model, image, ids)), expected, model
    )


@torch.no_grad()
def test_swin_merges_patches_one_stage_later_in_timm():
    """METER's Swin has timm's computation and other names; its tokens are averaged."""
    encoder = dict(type='lm4ve.TimmImageEncoder', **SWIN)
    model = model_of('vqa', image_encoder=encoder, image_pool='mean')
    swin = timm.create_model(**SWIN, num_classes=0, global_pool='').eval()
    state = {
        k: v for k, v in released.random_state('vqa').items() if 'vit_model' not in k
    }
    for name, weight in swin.state_dict().items():
        stage = re.fullmatch(r'layers\.(\d)\.downsample\.(.*)', name)
        name = f'layers.{int(stage[1]) - 1}.downsample.{stage[2]}' if stage else name
        state[f'vit_model.{name}'] = weight
    indices = {
        f'vit_model.layers.0.blocks.1.{k}': torch.zeros(1) for k in ('attn_mask', INDEX)
    }
    ours = convert_meter(state | indices, vocabulary=ANSWERS)
    model.load_state_dict(ours, strict=True)
    image, ids = inputs(64)
    tokens = swin.forward_features(image).flatten(1, 2)
    expected = released.answer_logits(
        state, released.features(state, image, ids, tokens)
    )
    assert_equal_but_for_rounding(
        model.head(pooled(model, image, ids)), expected, model
    )


@torch.no_grad()
def test_positions_are_resized_as_meter_does():
    """Bicubically, in two dimensions, without the class token."""
    state, ours = converted('vqa')
    encoder = dict(type='lm4ve.TransformersImageEncoder', config=IMAGE, image_size=48)
    model = model_of('vqa', image_encoder=encoder)
    model.load_state_dict(ours)
    name = 'vit_model.visual.positional_embedding'
    grid = state[name][1:].T.reshape(1, 24, 4, 4)
    grid = torch.nn.functional.interpolate(grid, size=(6, 6), mode='bicubic')
    state[name] = torch.cat((state[name][:1], grid[0].flatten(1).T))
    image, ids = inputs(48)
    expected = released.features(state, image, ids)
    assert_equal_but_for_rounding(pooled(model, image, ids), expected, model)


@pytest.mark.parametrize('head', ['vqa', 'retrieval'])
def test_tool_brings_every_used_weight(head, tmp_path):
    state = numbered(released.random_state(head))
    (tmp_path / 'answers.json').write_text(json.dumps(ANSWERS))
    answers = ('--vocabulary', tmp_path / 'answers.json') if head == 'vqa' else ()

    ours = convert_here('vqa', tmp_path, dict(state_dict=state, epoch=3), *answers)

    model_of(head).load_state_dict(ours, strict=True)
    uncalled = (
        r'text_transformer.*(pooler|position_ids).*|vit_model\.(positional|ln_final).*'
    )
    used = {k: v for k, v in state.items() if not re.fullmatch(uncalled, k)}
    assert sizes_by_number(ours) == sizes_by_number(used)


OTHER_FILES = [
    (
        lambda s: s.pop('vit_model.visual.conv1.weight'),
        ANSWERS,
        "METER with CLIP's ViT or Swin",
    ),
    (
        lambda s: s.update({'nlvr2_classifier.0.weight': torch.zeros(1)}),
        ANSWERS,
        'nlvr2',
    ),
    (lambda s: None, None, '--vocabulary'),
    (lambda s: None, ['yes'], '--vocabulary has 1 answers'),
]


@pytest.mark.parametrize('change, vocabulary, message', OTHER_FILES)
def test_other_files_are_refused(change, vocabulary, message):
    state = released.random_state('vqa')
    change(state)
    with pytest.raises(UserError, match=message):
        convert_meter(state, vocabulary=vocabulary)
