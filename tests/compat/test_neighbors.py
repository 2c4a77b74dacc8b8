"""Packages that other OpenMMLab projects install beside do not end our imports."""

import os
import subprocess
import sys

import pytest

pytest.importorskip('mmpretrain')

SCRIPT = """
import sys, lm4ve
from mmpretrain.utils import dependency
import mmpretrain.models, mmpretrain.datasets
from mmpretrain.registry import MODELS
vit = MODELS.build(dict(type='VisionTransformer', arch='deit-tiny', img_size=32))
neck = MODELS.get('LLMBlockNeck')
try:
    MODELS.build(dict(type='CLIP'))
except ImportError as e:
    print(neck.__name__, '|', e)
"""


@pytest.mark.slow
def test_mmpretrain_imports_beside_pycocotools(tmp_path):
    """A fake package: its presence is all that mmpretrain asks for."""
    package = tmp_path / 'pycocotools'
    package.mkdir()
    for name in ('__init__', 'coco', 'mask'):
        (package / f'{name}.py').write_text('class COCO: pass\n')
    metadata = tmp_path / 'pycocotools-2.0.8.dist-info'
    metadata.mkdir()
    (metadata / 'METADATA').write_text('Metadata-Version: 2.1\nName: pycocotools\nVersion: 2.0.8\n')
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', SCRIPT],
        text=True,
        capture_output=True,
        env={**os.environ, 'PYTHONPATH': path},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1].startswith('LLMBlockNeck |')
