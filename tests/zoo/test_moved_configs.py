"""An old path of a config is answered with the new one."""

import runpy
import shlex

import pytest
from mmengine.config import Config, DictAction

from lm4ve.engine.config import read_config
from lm4ve.errors import UserError
from lm4ve.zoo.moved_configs import where_it_went
from tests.helpers.tasks import FOLDERS, ROOT, configs_of

SIZES = ('125m', '350m', '1.3b', '2.7b', '6.7b')
CONTROLS = ('mlp', 'opt-125m', 'opt-6.7b', *(f'llama-{c}' for c in ('head', 'norms')))


def overrides_of(words: str) -> dict:
    """What ``--cfg-options WORDS`` means to the tools."""
    pairs = [w.split('=', 1) for w in shlex.split(words)]
    return {k: DictAction._parse_iterable(v) for k, v in pairs}


@pytest.mark.parametrize('task', [t for t in FOLDERS if t != 'image'])
def test_configs_of_other_tasks_moved_to_their_folders(task, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in configs_of(task):
        old = f'configs/lm4ve/{name}'
        assert where_it_went(old) == f'{old} moved to configs/{task}/{name}.'


def test_from_elsewhere_the_package_has_the_answer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = where_it_went('lm4ve/videomae-s_ssv2.py')
    assert found.endswith('/configs/video/videomae-s_ssv2.py.')


@pytest.mark.parametrize('path', ['configs/lm4ve/mine.py', 'mine.py', '*.py', '', '/'])
def test_what_never_was_one_of_ours_has_no_answer(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert where_it_went(path) is None


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    'old, new',
    [
        ('lm4ve/vit-s_opt-{}_in1k.py', 'lm4ve/vit-s_llama_in1k.py'),
        ('lm4ve/100e/vit-s_opt-{}_100e_in1k.py', 'lm4ve/vit-s_llama_in1k.py'),
        ('lm4ve/videomae-s_opt-{}_ssv2.py', 'video/videomae-s_llama_ssv2.py'),
    ],
)
def test_a_folded_sweep_is_a_config_and_overrides(size, old, new, monkeypatch):
    monkeypatch.chdir(ROOT)
    old = f'configs/{old.format(size)}'
    path, words = where_it_went(old).removeprefix(f'{old} is now ').split(' --cfg-options ')
    assert path == f'configs/{new}'
    without = read_config(path, set_scope=False)
    cfg = read_config(path, overrides_of(words), set_scope=False)
    piece = Config.fromfile(ROOT / f'configs/_base_/llm/opt-{size}.py').llm_block
    assert dict(cfg.model.neck.block, layers=(-1,)) == piece
    assert list(cfg.model.neck.block.layers) == [-1]
    # The paper cut the rate for this one to a fifth.
    rate = without.optim_wrapper.optimizer.lr / (5 if size == '350m' else 1)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate)
    epochs = 100 if '100e' in old else without.train_cfg.max_epochs
    assert cfg.train_cfg.max_epochs == epochs


@pytest.mark.parametrize('block', CONTROLS)
def test_the_100_epoch_files_are_an_override(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    answer = where_it_went(f'configs/lm4ve/100e/vit-s_{block}_100e_in1k.py')
    assert ' --cfg-options train_cfg.max_epochs=100' in answer


def test_a_config_may_inherit_what_moved(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = 'lm4ve::lm4ve/vectornet_argoverse1.py'\n")
    with pytest.raises(UserError, match=r'inherits .* moved to .*motion/vectornet_argo'):
        read_config(path)


@pytest.mark.parametrize('tool', ['train.py', 'motion/baselines.py', 'analysis/ablate.py'])
def test_a_tool_names_the_new_path(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    old = 'configs/lm4ve/vectornet-demo_none_sim.py'
    given = old
    if 'ablate' in tool:
        given = tmp_path / 'grid.py'
        given.write_text(
            f"name = 'mine'\nbase = {old!r}\nmetric = 'm'\nseeds = 1\n"
            "reference = 'a'\nvariants = {'a': dict()}\n"
        )
    monkeypatch.setattr('sys.argv', [tool, str(given)])
    with pytest.raises(UserError) as e:
        runpy.run_path(str(ROOT / 'tools' / tool))['main']()
    assert f'{old} moved to configs/motion/vectornet-demo_none_sim.py.' in str(e.value)
