"""Packages that other OpenMMLab projects install beside do not end our imports."""

import os
import subprocess
import sys

import pytest

pytest.importorskip('mmpretrain')

SCRIPT = """
import lm4ve, mmpretrain.models, mmpretrain.datasets
from mmpretrain.registry import MODELS
assert lm4ve.wrap
MODELS.build(dict(type='VisionTransformer', arch='deit-tiny', img_size=32))
assert MODELS.get('LLMBlockNeck')
"""


@pytest.mark.slow
def test_mmpretrain_imports_beside_pycocotools_and_bitsandbytes(tmp_path):
    """Fake packages: their presence is what mmpretrain and MMEngine's optimizers ask for."""
    files = {f'pycocotools/{name}.py': 'class COCO: pass\n' for name in ('__init__', 'coco')}
    files['bitsandbytes/__init__.py'] = (
        'from types import SimpleNamespace\nfrom torch.optim import Adam\n'
        "optim = SimpleNamespace(Adam=Adam, LAMB=type('LAMB', (Adam,), {}))\n"
    )
    about = 'Metadata-Version: 2.1\nName: pycocotools\nVersion: 2.0.8\n'
    files['pycocotools-2.0.8.dist-info/METADATA'] = about
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    environment = {**os.environ, 'PYTHONPATH': path}
    subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT], env=environment, check=True)


@pytest.mark.slow
def test_imports_are_quiet_and_leave_mmdet_for_who_wants_it():
    pytest.importorskip('mmdet')
    lines = (
        'import sys, lm4ve, mmpretrain.models, mmpretrain.datasets, pkg_resources',
        "assert not {'mmdet', 'sklearn'} & {*sys.modules} and utils.ResLayerExtraNorm is None",
        'import mmdet.models',
        'from mmdet.registry import MODELS',
        "assert MODELS.get('ResLayerExtraNorm') is utils.ResLayerExtraNorm is not None",
    )
    script = '\n'.join(lines).replace('utils.', 'mmpretrain.models.utils.')
    done = subprocess.run([sys.executable, '-c', script], text=True, capture_output=True)
    assert not done.returncode and not done.stderr, done.stderr
