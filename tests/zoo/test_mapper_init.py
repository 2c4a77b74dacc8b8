"""The mappers of every shipped config start as in the released code of its task.

What the codes do (repository, file:line, commit):

- ziqipang/LM4VisualEncoding e34e919, images: timm's initialization reaches the mappers,
  a truncated normal distribution of 0.02 (image_classification/models/vit_llama.py:97,
  109, 175). LLMBoostMedical's pictures are the same (ZhixinLai/LLMBoostMedical f34c6fb,
  2D_classification/models/vit_llama.py:98, 112, 199).
- Video: made after ``self.apply(self._init_weights)``
  (video_understanding/modeling_finetune_llama.py:235-242), so torch's own values.
- Clouds: nothing initializes them (pointcloud_classification/models/Point_BERT.py:159).
- LLMBoostMedical's volumes: nothing does (3D_classification/models/vivit_llama.py:164).
- LLM4Seg: nothing does, nor in MedVisionLlama, whose adapters lie on such mappers
  (AS-Lab/Marthi-et-al-2025-MedVisionLlama 1b951b5, src/models/medvisionllama.py:65).
- PanguMotion: its initialization leaves out what has the language model's name, as the
  mappers do (QuanhaoR/RealMotionPanGu c384929, realmotion/model/realmotion_pangu.py:64,
  100-105).

The paper's motion, VQA and rooms were never released; ``docs/guides/configs.md`` says
what they have, and why.
"""

import pytest
import torch
from torch import nn

from lm4ve.necks import LLMBlockNeck
from lm4ve.runner.command_line import build_runner
from tests.helpers.golden import Store
from tests.helpers.necks.initial_values import (
    TORCH_DEFAULT,
    TRUNCATED_NORMAL,
    assert_initial_values,
)
from tests.helpers.shrink import shrinker_of
from tests.helpers.tasks import FOLDERS

#: How the names of configs begin whose mappers start as torch makes them. The others
#: are images, hosts that the paper lacks, and demos but those of clouds and RealMotion.
LEFT_TO_TORCH = (
    'videomae-s_',
    'videomae-b_',
    'pointbert',
    'pointmae',
    'vectornet_',
    'mmtransformer_',
    'realmotion',
    'meter_',
    'sqa3d_',
    'vivit_',
    'cmunext_',
    'vit3d_',
)
#: One of each formula, for `make test`.
QUICK = {'vit-demo_minilm_digits.py', 'videomae-s_llama_ssv2.py'}


def rows() -> list:
    """Return ``(task, name)`` of each config with a block that trains from the start."""
    found = []
    for task in FOLDERS:
        store = Store(task)
        for name in store.names():
            config = store.read(name).config
            has_neck = any("type: 'LLMBlockNeck'" in line for line in config)
            # Its first stage has trained the mappers.
            is_second_stage = name == 'vit-b_llama-lora_in1k.py'
            if has_neck and not is_second_stage:
                marks = () if name in QUICK else pytest.mark.walk
                found.append(pytest.param(task, name, id=f'{task}/{name}', marks=marks))
    return found


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A working folder a task, with the files that its configs name."""
    return {task: tmp_path_factory.mktemp(task) for task in FOLDERS}


def initializer_of(name: str) -> dict:
    """Return the initializer that a config should have."""
    if name.startswith(LEFT_TO_TORCH):
        return TORCH_DEFAULT
    return TRUNCATED_NORMAL


@pytest.mark.parametrize('task, name', rows())
def test_mappers_start_as_released(task, name, folders, tmp_path, monkeypatch):
    """Small sizes will do: the formulas depend on the numbers of inputs alone."""
    shrinker = shrinker_of(task, folders[task])
    shrinker.enter(monkeypatch)
    model = build_runner(shrinker.load(name, tmp_path)).model
    torch.manual_seed(0)
    model.init_weights()
    necks = necks_of(model)
    assert necks
    for neck in necks:
        assert_initial_values(neck, initializer_of(name))


def necks_of(model: nn.Module) -> list[LLMBlockNeck]:
    """Return the necks within a model."""
    return [module for module in model.modules() if isinstance(module, LLMBlockNeck)]
