"""A counted training step against torch's counter, formulas, DDP's buckets and a ring."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lm4ve.cost import cost_of_step
from lm4ve.cost.fake import build_fake, fake_config, fake_tensors
from lm4ve.cost.step import counting
from lm4ve.runner.config import read_config
from lm4ve.tasks import task_of_config
from tests.helpers import models
from tests.helpers.tasks import CONFIGS

#: LLaMA-7B's last layer: four square projections, three of the MLP, two norms and the
#: last.
LLAMA = 4 * 4096**2 + 3 * 4096 * 11008 + 3 * 4096
VIT_S = 22_050_664
DEMO = CONFIGS / 'motion/vectornet-demo_minilm_sim.py'


@pytest.fixture(scope='module')
def vit():
    pytest.importorskip('mmpretrain')
    return [
        cost_of_step(read_config(CONFIGS / f'lm4ve/vit-s{s}_in1k.py'), 32)
        for s in ('', '_llama')
    ]


@pytest.fixture(scope='module')
def demo():
    return cost_of_step(read_config(DEMO), 2)


@pytest.fixture
def group(tmp_path):
    dist.init_process_group('gloo', f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_block_of_llama_is_frozen_and_its_mappers_train(vit):
    plain, other = vit
    assert (plain.trainable, plain.frozen) == (VIT_S, 0)
    assert other.frozen == LLAMA
    assert other.trainable == VIT_S + 2 * 384 * 4096
    # In a checkpoint: it, its average and two numbers of AdamW, and no frozen weight.
    assert other.checkpoint == pytest.approx(16 * other.trainable, rel=1e-3)


def test_a_step_needs_no_weights_by_which_a_control_is_scaled(demo):
    cfg = read_config(DEMO)
    cfg.model.neck.block.pretrained = 'scaled'
    scaled = cost_of_step(cfg, 2)
    assert scaled.frozen == demo.frozen
    assert scaled.trainable == demo.trainable
    assert scaled.macs == demo.macs


def test_operations_are_those_of_the_formulas(vit):
    """docs/results/performance.md: 442 GMAC of ViT-S, 28.0 of the neck at batch 32."""
    plain, other = vit
    assert plain.macs == pytest.approx(445.4e9, rel=1e-3)
    assert other.macs - plain.macs == pytest.approx(28.0e9, rel=2e-3)
    assert plain.forward['head'] == 32 * 384 * 1000
    assert other.forward['backbone'] == plain.forward['backbone']


def count(task: str):
    model, data = models.build(task)
    model.train()
    data = model.data_preprocessor(data, True)
    with counting(model) as counts:
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        counts.end_forward()
        loss.backward()
    return counts


def test_a_fake_model_is_counted_as_a_real_one():
    real = count('image')
    with fake_tensors():
        fake = count('image')
    assert fake.forward == real.forward
    # All counts what its children count.
    assert fake.forward['all'] == sum(real.forward.values()) / 2
    assert fake.total() == real.total() > 2 * real.forward['all']
    assert fake.saved == real.saved


@pytest.mark.parametrize(
    'name', ['trunc_normal_', 'kaiming_uniform_', 'orthogonal_', 'eye_']
)
def test_torch_initializes_fake_weights(name):
    with fake_tensors():
        assert getattr(nn.init, name)(torch.empty(4, 8)).shape == (4, 8)


def test_activations_are_counted_once():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with counting(model) as counts:
        model(torch.randn(5, 4)).sum().backward()
    # The input, and the ReLU's output, which is the second layer's input too.
    assert counts.saved == {torch.float32: 4 * 5 * (4 + 8)}
    assert counts.total() == 5 * (2 * 4 * 8 + 3 * 8 * 2)


def test_ddp_reduces_as_many_bytes_as_are_counted(demo, group):
    """A real model with a frozen block; the hook sees each bucket before it is sent."""
    cfg = fake_config(read_config(DEMO))
    model = build_fake(cfg)
    ddp = DistributedDataParallel(model)
    buckets = []

    def hook(state, bucket):
        buckets.append(bucket.buffer().nbytes)
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    ddp.register_comm_hook(None, hook)
    data = task_of_config(cfg).batches.batch(cfg, 2, training=True)
    data = model.data_preprocessor(data, True)
    loss, _ = model.parse_losses(ddp(**data, mode='loss'))
    loss.backward()
    assert sum(buckets) == demo.gradients > 0
