"""No config is missing from its task's tests, its metafile or its README."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from lm4ve.runner.config import read_config
from lm4ve.zoo import MIM_FOLDER, find_config
from tests.helpers.tasks import CONFIGS, FOLDERS, HOSTS, ROOT, configs_of


def models_of(folder: Path) -> list[dict]:
    return yaml.safe_load((folder / 'metafile.yml').read_text())['Models']


def test_every_folder_of_configs_belongs_to_a_task_or_a_host():
    folders = {p.name for p in CONFIGS.iterdir() if p.is_dir()}
    own = {folder.name for folder in FOLDERS.values()}
    assert folders - own == {'_base_', 'ablations', *HOSTS}


@pytest.mark.parametrize('task', FOLDERS)
def test_every_config_is_a_parameter_of_a_test_of_its_task(task):
    tested = set()
    for file in (ROOT / 'tests/tasks' / task).glob('test_*.py'):
        module = importlib.import_module(f'tests.tasks.{task}.{file.stem}')
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
        f'configs/{folder.name}/{c}' for c in own
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


def test_get_model_builds_ours_by_name():
    mmpretrain = pytest.importorskip('mmpretrain')
    model = mmpretrain.get_model('vit-demo_minilm_digits')
    assert type(model.neck).__name__ == 'LLMBlockNeck'
    assert 'vit-s_llama_in1k' in mmpretrain.list_models('*llama*')
