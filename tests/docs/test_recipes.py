"""The page of recipes says what the configs give."""

import pytest

from lm4ve.errors import UserError
from tests.helpers.tasks import ROOT

for package in ('mmpretrain', 'mmaction'):
    pytest.importorskip(package)

CONFIG = 'configs/lm4ve/vit-s_llama_in1k.py'
TORCHS_INIT = dict(type='lm4ve.TorchDefault', layer='Linear')


@pytest.fixture(scope='module')
def recipes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools/dev'))
        import recipes

        yield recipes


@pytest.fixture(scope='module')
def values(recipes):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools/dev'))
        import recipe_values

        yield recipe_values


def names() -> list[str]:
    return sorted(path.stem for path in (ROOT / 'docs/results/recipes').glob('*.toml'))


@pytest.mark.parametrize('name', names())
def test_the_page_has_what_the_configs_give(recipes, name):
    table = recipes.table_of(recipes.read_section(name))
    assert table in recipes.PAGE.read_text(), 'python tools/dev/recipes.py'


def test_the_page_has_every_section_once(recipes):
    text = recipes.PAGE.read_text()
    titles = [section.title for section in recipes.read_sections()]
    assert len(titles) == len(names())
    for title in titles:
        assert text.count(f'\n## {title}\n') == 1


@pytest.mark.parametrize(
    'field, value, row',
    [
        ('optim_wrapper.optimizer.lr', 2e-3, 'mappers: rate, decay'),
        ('model.backbone.drop_path_rate', 0.2, 'drop path, dropout'),
        ('model.neck.init_cfg', TORCHS_INIT, 'initial mappers: deviation in, out'),
        ('model.neck.block.layers', [15], 'layer of LLaMA-7B; its final norm'),
        ('param_scheduler.1.eta_min', 0.0, 'schedule, its floor'),
    ],
)
def test_a_changed_config_contradicts_its_row(recipes, monkeypatch, field, value, row):
    section = recipes.read_section('images')
    (changed,) = [each for each in section.rows if each.what == row]
    recipes.our_value(section, changed)
    recipe = recipes.Recipe(CONFIG, {field: value})
    monkeypatch.setattr(recipes, 'recipe_of', lambda config: recipe)
    with pytest.raises(UserError, match='why'):
        recipes.our_value(section, changed)


def test_a_path_finds_defaults_and_refuses_what_is_not_there(values):
    recipe = values.Recipe(CONFIG)
    pipeline = 'train_dataloader.dataset.pipeline'
    assert values.read(recipe, f'{pipeline}[RandomFlip].prob') == 0.5
    assert values.read(recipe, 'model.neck.low_rank') == 'auto'  # its class's default
    assert values.read(recipe, 'default_hooks.early_stopping?') is None
    for path in (f'{pipeline}[Rotate].angle', 'optim_wrapper.optimizer.rate'):
        with pytest.raises(UserError, match='nothing at'):
            values.read(recipe, path)


def test_initial_weights_are_those_of_the_initialized_model(values):
    # The head's own initializer acts after the model's, which asks for 0.02.
    own = dict(type='Constant', layer='Linear', val=0, bias=3)
    recipe = values.Recipe(CONFIG, {'model.head.init_cfg': own})
    assert values.read(recipe, '@std:head.layers') == '0'
    assert values.read(recipe, '@bias:head.layers') == '3'
    assert values.read(recipe, '@std:.attn.') == '0.02'


@pytest.mark.parametrize(
    'place',
    ['model.init_cfg[TruncNormal].std', 'model.cls_head.init_std', '@built:init_cfg'],
)
def test_what_a_config_asks_of_initial_weights_is_no_value(values, place):
    with pytest.raises(UserError, match='Measure'):
        values.read(values.Recipe(CONFIG), place)


def test_weights_of_a_file_have_no_initial_value(values):
    recipe = values.Recipe('configs/video/videomae-s_llama_ssv2.py')
    assert values.read(recipe, '@std:cls_head') == '2e-5'
    with pytest.raises(UserError, match='read from a file'):
        values.read(recipe, '@std:backbone')


def test_numbers_are_written_as_people_write_them(values):
    written = [values.text_of(value) for value in (5e-4, 0.05, 1e-3, 0.0, 1024, 1 / 3)]
    assert written == ['5e-4', '0.05', '1e-3', '0', '1024', '0.333333']
