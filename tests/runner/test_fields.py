"""A misspelt entry of a dict within a config is one line with its path; see lm4ve.errors."""

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import MODELS as ROOT

import lm4ve
from lm4ve.blocks import LLMBlock
from lm4ve.errors import UserError, build_from, check, require
from lm4ve.necks import LLMBlockNeck
from lm4ve.registry import MODELS

ARCH = dict(
    model_type='llama',
    hidden_size=8,
    intermediate_size=8,
    num_attention_heads=2,
    num_key_value_heads=2,
    num_hidden_layers=1,
    vocab_size=2,
)


def neck(**fields):
    block = dict(type='LLMBlock', checkpoint=None, pretrained=False, arch=ARCH)
    return LLMBlockNeck(in_channels=4, block=block, **fields)


def block(**fields):
    return LLMBlock(checkpoint=None, pretrained=False, arch=ARCH, **fields)


def retrieval_head(**fields):
    pytest.importorskip('mmpretrain')
    return MODELS.build(dict(type='RetrievalHead', in_channels=8, **fields))


def segmentor(**fields):
    pytest.importorskip('monai')
    backbone = dict(type='lm4ve.VolumeViT', image_size=(4, 4, 4), patch_size=(2, 2, 2))
    backbone.update(embed_dims=8, depth=1, num_heads=2)
    return ROOT.build(dict(type='lm4ve.VolumeSegmentor', backbone=backbone, **fields))


#: Builder, its arguments, and what the message begins with.
MISSPELT = [
    (neck, dict(mapper=dict(deph=2)), 'neck.mapper.deph', 'depth'),
    (neck, dict(lora=dict(rr=2)), 'neck.lora.rr', 'r'),
    (neck, dict(branch=dict(scedule='cosine')), 'neck.branch.scedule', 'schedule'),
    (neck, dict(norm_cfg=dict(type='LN', epz=1e-6)), 'neck.norm_cfg.epz', 'eps'),
    (
        neck,
        dict(norm_cfg=dict(type='GN', num_group=1)),
        'neck.norm_cfg.num_group',
        'num_groups',
    ),
    (
        block,
        dict(trainable='lora', lora=dict(dropot=0.1)),
        'block.lora.dropot',
        'dropout',
    ),
    (block, dict(causal=dict(sofft=0.5)), 'block.causal.sofft', 'soft'),
    (retrieval_head, dict(itm=dict(wieght=1.0)), 'model.head.itm.wieght', 'weight'),
    (
        segmentor,
        dict(loss=dict(name='DiceCELoss', bach=True)),
        'model.loss.bach',
        'batch',
    ),
    (segmentor, dict(loss=dict(name='DiceCELos')), 'model.loss.name', 'DiceCELoss'),
]


@pytest.mark.parametrize(
    'build, fields, path, right', MISSPELT, ids=[row[2] for row in MISSPELT]
)
def test_misspelt_entry_of_a_dict_is_named_with_its_path(build, fields, path, right):
    with pytest.raises(UserError) as error:
        build(**fields)
    text = str(error.value)
    assert path in text and f"'{right}'" in text and '\n' not in text
    assert text.startswith(path) or text.startswith('class `')


@dataclass
class Fields:
    size: int
    name: str = 'a'


def test_fields_are_built_from_a_dict_with_defaults():
    assert build_from(Fields, dict(size=1), 'f') == Fields(1, 'a')
    assert build_from(Fields, dict(size=1), 'f', size=2, name='b') == Fields(1, 'b')
    assert build_from(functools.partial(Fields, 3), dict(name='c'), 'f') == Fields(
        3, 'c'
    )
    assert build_from(lambda **others: others, dict(x=1), 'f') == dict(x=1)


WRONG = [
    (dict(name='a'), r'^f.size is missing. Fix: f=dict\(size=...\)\.$'),
    (dict(size=1, other=2), r'^f.other is not a known field. Known: size, name.$'),
    (5, '^f=5 must be of type dict'),
]


@pytest.mark.parametrize('fields, words', WRONG)
def test_wrong_fields_are_one_sentence(fields, words):
    with pytest.raises(UserError, match=words):
        build_from(Fields, fields, 'f')


@pytest.mark.parametrize(
    'number', [int, float, np.int8, np.int64, np.float16, np.float32, np.float64]
)
def test_bounds_hold_for_numbers_of_python_and_numpy(number):
    check('x', number(2), above=1, least=2, most=2)
    for bound in (dict(above=2), dict(least=3), dict(most=1)):
        with pytest.raises(UserError, match='^x=.*2.* must be a'):
            check('x', number(2), **bound)


@pytest.mark.parametrize('number', [float, np.float16, np.float32])
def test_nan_is_within_no_bounds(number):
    with pytest.raises(UserError, match='must be at least 0'):
        check('x', number('nan'), least=0)


def test_require_raises_its_sentence():
    require([1], 'never')
    with pytest.raises(UserError, match='^a.b goes with c. Fix: leave it out.$'):
        require([], 'a.b goes with c. Fix: leave it out.')


def test_no_check_offers_a_single_choice():
    """'x=3 must be one of 4' says nothing of the reason; ``require`` takes a sentence."""
    found = []
    for path in Path(lm4ve.__file__).parents[1].rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if not isinstance(node, ast.keyword) or node.arg != 'choices':
                continue
            if (
                isinstance(node.value, (ast.Tuple, ast.List))
                and len(node.value.elts) == 1
            ):
                if not isinstance(node.value.elts[0], ast.Starred):
                    found.append(f'{path}:{node.value.lineno}')
    assert not found
