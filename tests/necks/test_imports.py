"""What a wrapped model costs beside the model: no host, one line on the screen."""

import subprocess
import sys

from tests.helpers.tasks import ROOT

SCRIPT = """
import sys
import lm4ve
from torch import nn
from tests.helpers.models import BLOCK

lm4ve.wrap(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), '0', BLOCK)
found = {m.partition('.')[0] for m in sys.modules}
print('hosts:', sorted(found & {'mmcv', 'mmpretrain', 'mmaction', 'mmdet', 'mmseg', 'timm'}))
"""


def test_no_host_is_imported_and_one_line_is_printed():
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT], text=True, capture_output=True, check=False, cwd=ROOT
    )
    said = (done.stdout + done.stderr).strip().splitlines()
    assert said[-1:] == ['hosts: []'] and len(said) == 2 and 'LLMBlock: layers' in said[0], said
