"""Values of --cfg-options are MMEngine's, and dicts as in Python; the rest is an error."""

import pytest
from mmengine.config import Config, DictAction

from lm4ve.errors import UserError
from lm4ve.runner.cfg_options import parse_option
from lm4ve.runner.config import merge_options
from lm4ve.runner.flags import CONFIG, build_parser

RESIZE = dict(type='Resize', scale=8)
DICTS = {
    '[dict(type=Resize, scale=8), dict(type=PackInputs)]': [
        RESIZE,
        dict(type='PackInputs'),
    ],
    "[dict(type='Resize',scale=8)]": [RESIZE],
    '{"type": "Resize", "scale": 8}': RESIZE,
    "'dict(type=Resize, scale=8)'": RESIZE,
    '(dict(a=-1.5, b=None), {})': (dict(a=-1.5, b=None), {}),
    '{}': {},
    'dict(type=lm4ve.LLMBlockNeck, block=dict(layers=(1, 2)))': dict(
        type='lm4ve.LLMBlockNeck', block=dict(layers=(1, 2))
    ),
}


@pytest.mark.parametrize('text', DICTS)
def test_dicts_are_read_as_in_python(text):
    assert parse_option(f'model.field={text}') == ('model.field', DICTS[text])


@pytest.mark.parametrize(
    'text', ['1', '1e-3', 'a,b', '(1, 2)', '[(1,a),[b]]', 'None', '{seed}', '']
)
def test_other_values_are_mmengines(text):
    assert parse_option(f'field={text}') == ('field', DictAction._parse_iterable(text))


WRONG = {
    'field': 'is not FIELD=VALUE',
    '=3': 'is not FIELD=VALUE',
    'field=[1,2': 'field=.*cannot be read',
    'field=[a(b,c)]': 'field=.*cannot be read',
    'field=[dict(a=1]': 'field=.*cannot be read',
    'field=dict(open("a"))': 'field=.*cannot be read',
    'field=dict(a=open("b"))': 'field=.*cannot be read',
    'field={[1]: 2}': 'field=.*cannot be read',
    'field={**a, "b": 1}': 'field=.*cannot be read',
}


@pytest.mark.parametrize('word', WRONG)
def test_unreadable_value_is_named_with_its_field(word):
    with pytest.raises(UserError, match=f'^--cfg-options .*{WRONG[word]}.* Fix: '):
        parse_option(word)


def test_flag_may_be_repeated():
    words = 'a.py --cfg-options x=1 y=2 --cfg-options y=3'
    args = build_parser(None, CONFIG).parse_args(words.split())
    assert args.cfg_options == dict(x=1, y=3)


def test_dict_takes_the_place_of_a_name():
    cfg = Config(dict(model=dict(backbone=dict(arch='deit-small', depth=[2]))))
    merge_options(
        cfg, {'model.backbone.arch': dict(embed_dims=48), 'model.backbone.depth': {}}
    )
    assert cfg.model.backbone == dict(arch=dict(embed_dims=48), depth={})
