"""What only a GPU shows: equal results, mixed precision, DDP on nccl, FSDP, `lm4ve try`.

`make gpu-check` runs these; without a GPU they are skipped.
"""

import os
import subprocess

import numpy as np
import pytest
import torch

from lm4ve.runner.command_line import build_runner
from lm4ve.study.pictures.data import read_data
from lm4ve.study.tokens.encoders import load_encoder
from tests.helpers import models
from tests.helpers.pictures import compute_features, run_try, write_folder
from tests.helpers.processes import environment
from tests.helpers.shrink import shrinker_of
from tests.helpers.tasks import ROOT

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
pytestmark = [pytest.mark.cuda, needs_gpu]


def loss_of(task: str, device: str, **options) -> float:
    """Return the loss of a tiny model after its backward pass."""
    model, data = models.build(task, **options)
    model.to(device)
    if task == 'video':  # in training a clip has one view
        data['inputs'] = [views[:1] for views in data['inputs']]
    batch = model.data_preprocessor(data, training=True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.device.type == device
    return loss.item()


@pytest.mark.parametrize('task', models.TASKS)
def test_a_step_is_that_of_the_cpu(task):
    assert loss_of(task, 'cuda') == pytest.approx(loss_of(task, 'cpu'), rel=1e-3)


@pytest.mark.parametrize('low_rank', ['off', 'fold', 'absorb'])
def test_every_path_of_the_block_is_that_of_the_cpu(low_rank):
    expected = loss_of('image', 'cpu', low_rank=low_rank)
    assert loss_of('image', 'cuda', low_rank=low_rank) == pytest.approx(
        expected, rel=1e-3
    )


@pytest.fixture
def one_rank(monkeypatch):
    """The variables of a launcher with one process; its group is left at the end."""
    values = dict(
        RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, MASTER_ADDR='127.0.0.1', MASTER_PORT=29511
    )
    for name, value in values.items():
        monkeypatch.setitem(os.environ, name, str(value))
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def trained(tmp_path, name: str, launcher: str = 'none', **options):
    """Train a shrunk image config for one epoch."""
    pytest.importorskip('mmpretrain')
    with pytest.MonkeyPatch.context() as patch:
        shrinker = shrinker_of('image', tmp_path / 'tiny_files')
        shrinker.enter(patch)
        cfg = shrinker.load(name, tmp_path, launcher=launcher)
        cfg.merge_from_dict(options)
        runner = build_runner(cfg)
        runner.train()
    assert (tmp_path / 'epoch_1.pth').exists()
    return runner


def test_mixed_precision_trains(tmp_path):
    options = {
        'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.loss_scale': 'dynamic',
    }
    trained(tmp_path, 'vit-s_llama_in1k.py', **options)


def test_ddp_trains_on_nccl(tmp_path, one_rank):
    runner = trained(tmp_path, 'vit-s_llama_in1k.py', launcher='pytorch')
    assert torch.distributed.get_backend() == 'nccl'
    assert runner.distributed


def test_fsdp_trains(tmp_path, one_rank):
    trained(tmp_path, 'vit-b_llama_fsdp_in1k.py', launcher='pytorch')


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_two_gpus_train_on_nccl(tmp_path):
    command = (
        'bash tools/dist_train.sh configs/lm4ve/vit-demo_minilm_digits.py 2 '
        f'--work-dir {tmp_path} --cfg-options train_cfg.max_epochs=1'
    )
    subprocess.run(command.split(), cwd=ROOT, env=environment(real=True), check=True)
    assert (tmp_path / 'epoch_1.pth').exists()


@pytest.mark.parametrize(
    'name', ['vit-demo_none_digits', 'timm/resnet18', 'torchvision/swin_v2_t']
)
def test_features_are_those_of_the_cpu(name, tmp_path, monkeypatch):
    data = read_data(str(write_folder(tmp_path / 'data', _=dict(a=5, b=5))))
    encoder = load_encoder(name, 'none')
    found = compute_features(encoder, data, tmp_path / 'gpu').tokens.astype(np.float64)
    for parameter in encoder.module.parameters():
        assert parameter.device.type == 'cpu'
    monkeypatch.setattr(
        'lm4ve.study.tokens.features.find_device', lambda _: torch.device('cpu')
    )
    expected = compute_features(encoder, data, tmp_path / 'cpu').tokens
    expected = expected.astype(np.float64)
    # Convolutions round their inputs to the 10 bits of TF32.
    difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert difference < 1e-2


@pytest.mark.parametrize(
    'encoder', ['vit-demo_none_digits', 'timm/vit_tiny_patch16_224']
)
def test_try_runs_with_its_default_workers(encoder, tmp_path):
    results = run_try(encoder, tmp_path)
    assert {'linear (class)', 'knn', 'frozen'} <= {*results['variant']}
