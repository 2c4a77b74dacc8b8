"""A config of the user's own, as the pages give it, is trained, resumed, tested and looked at.

The pages add a neck to a host's config and say nothing of hooks.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from mmengine.registry import DATASETS

from lm4ve.necks.usage import watch_necks
from lm4ve.runner.config import read_checked_config
from lm4ve.tasks.base.building import build_model, collate
from tests.helpers import quick_python
from tests.helpers.code_blocks import blocks_of
from tests.helpers.image import images
from tests.helpers.normed import note_norms
from tests.helpers.tools import run_command

PAGES = ('README.md', 'docs/get_started/your_own_config.md')
COMMANDS = """\
lm4ve train own.py --cfg-options train_cfg.max_epochs=1
lm4ve train own.py --resume
lm4ve test own.py work_dirs/own/epoch_2.pth
lm4ve visualize own.py work_dirs/own/epoch_1.pth photos/val/cat/0.JPEG --out-dir seen
python -c "import lm4ve; assert lm4ve.apis.inference('own.py', 'work_dirs/own/epoch_2.pth', \\
  'photos/val')"
"""


def config_of(page: str) -> str:
    """Return the config of a page with a base and a language model that are here."""
    (code,) = {
        block.code
        for block in blocks_of(page)
        if block.language == 'python' and "out_type='cls_token'" in block.code
    }
    code = re.sub(r'(?m)^_base_ = .*$', '', code)
    code = code.replace('/path/to/llama-7b', 'package:all-MiniLM-L6-v2')
    code = code.replace("'float16'", "'float32'")
    return f"_base_ = './host.py'\n{code}"


#: The configs of the page with a base of mmpretrain that has other weights than a ViT.
MAPS = ('swin.py', 'resnet.py')


def block_with(word: str) -> str:
    """Return the only Python block of the page that has a word."""
    (code,) = [
        block.code
        for block in blocks_of('docs/get_started/your_own_config.md')
        if block.language == 'python' and word in block.code
    ]
    return code


@pytest.mark.slow
@pytest.mark.parametrize('name', MAPS)
def test_config_of_another_backbone_trains_as_it_stands_on_own_pictures(tmp_path, name):
    for split in ('train', 'val'):
        images.fill(tmp_path / 'photos' / split, ('cat', 'dog'))
    pictures = block_with("data_root='data/photos'")
    pictures = pictures.replace('data/photos', f'{tmp_path}/photos')
    (tmp_path / name).write_text(block_with(f'# {name}') + pictures)
    cfg = read_checked_config(tmp_path / name)
    model, _ = build_model(cfg)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = collate(cfg, [dataset[0], dataset[-1]])
    (watched,) = watch_necks(model)
    normed = note_norms(watched.neck)
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    losses['loss'].backward()
    assert watched.defect() == ''
    assert normed == [False]
    assert model.head.fc.out_features == 2


@pytest.mark.slow
@pytest.mark.parametrize('page', PAGES)
def test_checkpoints_of_a_config_of_your_own_are_read_by_every_command(tmp_path, page):
    (tmp_path / 'own.py').write_text(config_of(page))
    shutil.copy(Path(__file__).with_name('own_config_host.py'), tmp_path / 'host.py')
    for split in ('train', 'val'):
        images.fill(tmp_path / 'photos' / split, ('cat', 'dog'))
    env = {**os.environ, 'PATH': quick_python.path()}
    done = run_command(
        'bash', '-eu', '-c', COMMANDS, cwd=tmp_path, env=env, timeout=480
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
