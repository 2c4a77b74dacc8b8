"""When repairs act: never for a model without our classes, and before a guard is needed."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.tasks import ROOT
from tests.helpers.tiny_runs import PLACE, write_runs
from tests.helpers.tools import run_command

#: Ends a script: prints the repairs that act in it, and those that do not.
REPORT = """
from tests.helpers.repaired import acts, visible_repairs
print('acting:', *[r.target for r in visible_repairs() if acts(r)])
print('waiting:', *[r.target for r in visible_repairs() if not acts(r)])
"""


def repairs_after(script: str, folder: Path) -> tuple[list[str], list[str]]:
    """Run a script in a process of its own; return which repairs act and wait at its end."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    command = [sys.executable, '-W', 'ignore', '-c', script + REPORT]
    done = run_command(*command, cwd=folder, env={**os.environ, 'PYTHONPATH': path})
    assert done.returncode == 0, done.stderr
    *_, acting, waiting = done.stdout.splitlines()
    return acting.split()[1:], waiting.split()[1:]


BLOCK = """
arch = dict(model_type='llama', hidden_size=8, intermediate_size=8, num_attention_heads=2)
BLOCK = dict(type='LLMBlock', layers=(0,), arch=dict(arch, num_hidden_layers=1, vocab_size=8))
"""
WRAP = (
    BLOCK
    + """
import lm4ve, torch
from torch import nn

def encoder():
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 8)

model = lm4ve.wrap(encoder(), 'linear2', BLOCK)
model(torch.randn(2, 3, 8)).sum().backward()
lm4ve.save_pretrained(model, 'folder')
lm4ve.from_pretrained(encoder(), 'folder')
"""
)
#: Plain MMEngine, and what of mmpretrain imports beside any package.
HOSTS = """
import mmengine.evaluator, mmengine.hooks, mmengine.infer, mmengine.model
import mmengine.optim, mmengine.runner
import mmcv.cnn.bricks.drop, mmcv.image, mmpretrain.apis
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'script', [WRAP + HOSTS, HOSTS + WRAP], ids=['before', 'after']
)
def test_wrapping_repairs_nothing(script, tmp_path):
    pytest.importorskip('mmpretrain')
    acting, waiting = repairs_after(script, tmp_path)
    assert acting == [] and len(waiting) > 15


#: mmpretrain's own tool, whose first import of lm4ve is the config's.
TRAIN = """
import runpy, sys
sys.argv = ['train.py', 'config.py', '--no-persistent-workers', '--no-pin-memory']
runpy.run_path({tool!r}, run_name='__main__')
"""


@pytest.mark.slow
@pytest.mark.parametrize('named', ['lm4ve', 'lm4ve.openmmlab'])
def test_all_repairs_act_where_a_hosts_tool_runs_our_config(named, tmp_path):
    pytest.importorskip('mmpretrain')
    write_runs(tmp_path)
    config = f"""
_base_ = './{PLACE}/vit_frozen.py'
custom_imports = dict(imports=['{named}'])
train_cfg = dict(max_epochs=1)
work_dir = 'work'
"""
    (tmp_path / 'config.py').write_text(config)
    package = Path(find_spec('mmpretrain').origin).parent
    script = TRAIN.format(tool=str(package / '.mim/tools/train.py'))
    acting, waiting = repairs_after(script, tmp_path)
    assert waiting == [] and len(acting) > 20
    assert (tmp_path / 'work/epoch_1.pth').is_file()


#: The ways in which a registry builds a class of ours, without a config file.
BUILT = {
    'a hook': "HOOKS.build(dict(type='lm4ve.EndingHook'))",
    'a neck': "MODELS.build(dict(type='LLMBlockNeck', in_channels=8, block=BLOCK))",
}


@pytest.mark.slow
@pytest.mark.parametrize('build', BUILT.values(), ids=BUILT)
def test_repairs_act_once_a_registry_builds_a_class_of_ours(build, tmp_path):
    script = f"""{BLOCK}
import lm4ve, mmengine.runner
from mmengine.registry import HOOKS, MODELS
from tests.helpers.repaired import acts, visible_repairs
assert not any(acts(repair) for repair in visible_repairs())
{build}
"""
    acting, waiting = repairs_after(script, tmp_path)
    assert waiting == [] and acting
