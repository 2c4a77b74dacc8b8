"""No config is missing from its task's tests, its metafile or its README."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.zoo import MIM_FOLDER, PROJECTS, all_models, find_config, list_models
from tests.helpers.tasks import CONFIGS, FOLDERS, HOSTS, ROOT, TESTS, configs_of


def models_of(folder: Path) -> list[dict]:
    return yaml.safe_load((folder / 'metafile.yml').read_text())['Models']


def test_every_folder_of_configs_belongs_to_a_task_or_a_host():
    folders = {p.name for p in CONFIGS.iterdir() if p.is_dir()}
    own = {FOLDERS[task].name for task in FOLDERS if task not in PROJECTS}
    assert folders - own == {'_base_', 'ablations', *HOSTS}


@pytest.mark.parametrize('task', FOLDERS)
def test_every_config_is_a_parameter_of_a_test_of_its_task(task):
    tested = set()
    package = '.'.join(TESTS[task].relative_to(ROOT).parts)
    for file in TESTS[task].glob('test_*.py'):
        module = importlib.import_module(f'{package}.{file.stem}')
        for function in vars(module).values():
            for mark in getattr(function, 'pytestmark', ()):
                if mark.name == 'parametrize' and mark.args[0] == 'name':
                    tested.update(mark.args[1])
    # Those below robustness/ test what others train.
    assert {c for c in configs_of(task) if not c.startswith('robustness/')} <= tested


@pytest.mark.parametrize('name', [*FOLDERS, *HOSTS])
def test_every_config_has_a_seed(name):
    folder = FOLDERS.get(name, CONFIGS / name)
    seeds = {}
    for config in configs_of(name):
        cfg = read_config(folder / config, set_scope=False)
        seeds[config] = cfg.get('randomness', {}).get('seed')
    assert seeds
    assert seeds == dict.fromkeys(seeds, 0)


@pytest.mark.parametrize('name', [*FOLDERS, *HOSTS])
def test_metafile_and_readme_list_every_config_of_a_folder(name):
    folder = FOLDERS.get(name, CONFIGS / name)
    models = models_of(folder)
    # Those below robustness/ test models that others train.
    own = [c for c in configs_of(name) if not c.startswith('robustness/')]
    assert sorted(m['Config'] for m in models) == [
        f'{folder.relative_to(ROOT)}/{c}' for c in own
    ]
    for model in models:
        assert model['Name'] == Path(model['Config']).stem
        assert name in HOSTS or model['Results'][0]['Dataset']
    assert {*own} <= {*re.findall(r'\]\(([^)#]+)', (folder / 'README.md').read_text())}


def test_the_model_index_imports_every_metafile():
    index = yaml.safe_load((MIM_FOLDER / 'model-index.yml').read_text())['Import']
    assert index == sorted(str(p.relative_to(ROOT)) for p in CONFIGS.glob('*/*.yml'))
    names = [m['Name'] for p in index for m in models_of((ROOT / p).parent)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    'before, now',
    [
        ('vision_language/meter_vqav2.py', 'vqa/meter_vqav2.py'),
        ('vision_language/sqa3d.py', 'rooms/sqa3d.py'),
    ],
)
def test_configs_inherit_by_the_names_that_folders_had(before, now, tmp_path):
    (tmp_path / 'own.py').write_text(f"_base_ = 'lm4ve::{before}'")
    inherited = Config.fromfile(tmp_path / 'own.py')
    assert inherited.to_dict() == Config.fromfile(CONFIGS / now).to_dict()
    assert find_config(f'lm4ve::{before}').samefile(CONFIGS / now)


def test_configs_of_a_project_are_found_by_the_folder_that_they_had(tmp_path):
    config = FOLDERS['medical'] / 'cmunext_none_busi.py'
    task, file = all_models()[config.stem]
    assert task == 'medical'
    assert file.samefile(config)
    for name in (f'medical/{config.stem}', f'medical/{config.name}'):
        assert find_config(name).samefile(config)
        assert find_config(f'lm4ve::{name}').samefile(config)
    piece = FOLDERS['medical'] / '_base_/cmunext.py'
    assert find_config('lm4ve::_base_/medical/cmunext.py').samefile(piece)
    (tmp_path / 'own.py').write_text(f"_base_ = 'lm4ve::medical/{config.name}'")
    inherited = Config.fromfile(tmp_path / 'own.py')
    assert inherited.to_dict() == Config.fromfile(config).to_dict()


def test_without_the_project_its_configs_are_an_error_with_the_fix(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(PROJECTS, 'medical', 'no_such_project')
    (tmp_path / 'own.py').write_text("_base_ = 'lm4ve::medical/cmunext_none_busi.py'")
    for find in (
        lambda: find_config('medical/cmunext_none_busi'),
        lambda: find_config('lm4ve::medical/cmunext_none_busi.py'),
        lambda: list_models(task='medical'),
        lambda: Config.fromfile(tmp_path / 'own.py'),
    ):
        with pytest.raises(UserError, match='no_such_project.* Fix: .*PYTHONPATH') as e:
            find()
        assert '\n' not in str(e.value)
    all_models.cache_clear()
    try:
        assert {task for task, _ in all_models().values()}.isdisjoint(PROJECTS)
    finally:
        all_models.cache_clear()


def test_get_model_builds_ours_by_name():
    mmpretrain = pytest.importorskip('mmpretrain')
    model = mmpretrain.get_model('vit-demo_minilm_digits')
    assert type(model.neck).__name__ == 'LLMBlockNeck'
    assert 'vit-s_llama_in1k' in mmpretrain.list_models('*llama*')
