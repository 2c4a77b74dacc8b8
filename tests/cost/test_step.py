"""A counted training step against torch's counter, formulas, DDP's buckets and a ring."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from lm4ve.blocks import frozen_tensors
from lm4ve.cost import cost_of_step
from lm4ve.cost.fake import build_fake, fake_config, fake_tensors
from lm4ve.cost.operations import FORMULAS, storage_of
from lm4ve.cost.step import counting, loss_of
from lm4ve.runner.config import read_config
from lm4ve.tasks import task_of_config
from tests.helpers import models
from tests.helpers.tasks import CONFIGS

#: LLaMA-7B's last layer: four square projections, three of the MLP, two norms and the
#: last.
LLAMA = 4 * 4096**2 + 3 * 4096 * 11008 + 3 * 4096
VIT_S = 22_050_664
DEMO = CONFIGS / 'motion/vectornet-demo_minilm_sim.py'
#: Of every task whose steps are counted, one config.
FAMILIES = [
    'lm4ve/vit-demo_minilm_digits.py',
    'medical/vivit_none_fracturemnist3d.py',
    'motion/vectornet-demo_minilm_sim.py',
    'pointcloud/pointbert-demo_minilm_primitives.py',
    'rooms/sqa3d-demo_minilm_rooms.py',
    'video/videomae-demo_minilm_moving-digits.py',
    'vqa/meter-demo_minilm_easy-vqa.py',
]


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
    tokens, width = 1 + 196, 384
    patches = 196 * (3 * 16 * 16) * width
    layer = 12 * tokens * width**2 + 2 * tokens**2 * width
    sample = patches + 12 * layer + width * 1000
    assert plain.forward['all'] == 32 * sample
    # Each product has two in the backward pass; the pictures need no gradient. Attention
    # computes its scores anew.
    again = 12 * tokens**2 * width
    assert plain.backward == 32 * (2 * sample - patches + again)
    assert other.macs - plain.macs == pytest.approx(28.0e9, rel=2e-3)
    assert plain.forward['head'] == 32 * 384 * 1000
    assert other.forward['backbone'] == plain.forward['backbone']


@pytest.mark.parametrize('name', FAMILIES)
def test_a_step_is_counted_as_torch_counts_a_real_one(name):
    """By torch's own counter and with real tensors, whose values decide what runs."""
    if name.startswith(('lm4ve', 'video')):
        pytest.importorskip('mmaction' if name.startswith('video') else 'mmpretrain')
    cfg = read_config(f'lm4ve::{name}')
    cost = cost_of_step(cfg, 2)
    cfg = fake_config(cfg)
    data = task_of_config(cfg).protocol.batch(cfg, 2, training=True)
    model = build_fake(cfg)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        loss = loss_of(model, data)
        forward = counter.get_total_flops() // 2
        loss.backward()
    assert cost.forward['all'] == forward
    assert cost.macs == counter.get_total_flops() // 2
    recorded = 0
    for operation, times in cost.calls.items():
        recorded += times * operation.macs
    assert recorded == cost.macs


def test_parts_add_up_to_all(demo):
    parts = [macs for part, macs in demo.forward.items() if part != 'all']
    assert len(parts) > 1
    assert sum(parts) == demo.forward['all']


def bytes_of_a_real_step(dtype):
    """Return the bytes that a real forward pass keeps by dtype, the model's left out."""
    model, data = models.build('image')
    model.train()
    weights = [*model.parameters(), *model.buffers(), *frozen_tensors(model).values()]
    known = {storage_of(weight) for weight in weights}
    saved = Counter()
    kept = []

    def pack(tensor):
        kept.append(tensor)  # so that no memory is used twice
        if storage_of(tensor) not in known:
            known.add(storage_of(tensor))
            saved[tensor.dtype] += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(model, data, dtype)
    return saved


def counted_bytes(dtype):
    """Count the bytes that a forward pass keeps, and those of the weights' casts."""
    with fake_tensors():
        model, data = models.build('image')
        model.train()
        with counting(model) as counts:
            loss = loss_of(model, data, dtype)
        del loss
    return counts.saved, counts.casts


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_a_step_without_values_keeps_the_bytes_of_a_real_one(dtype):
    saved, casts = counted_bytes(dtype)
    # Casts of weights are kept in 16 bits, too.
    if casts > 0:
        saved[torch.bfloat16] += casts
    # Torch's layer norm without values keeps its statistics in 16 bits, a real one in 32.
    assert saved == pytest.approx(bytes_of_a_real_step(dtype), rel=1e-3)


def test_mixed_precision_keeps_fewer_bytes_than_fp32():
    half, casts_of_half = counted_bytes(torch.bfloat16)
    full, casts_of_full = counted_bytes(None)
    assert casts_of_half > casts_of_full == 0
    assert half[torch.bfloat16] > full[torch.bfloat16] == 0
    assert sum(half.values()) < sum(full.values())


def test_a_weight_is_cast_once_for_all_its_calls():
    layer = nn.Linear(4, 8, bias=False)
    x = torch.randn(3, 4)
    with counting(layer) as counts, torch.autocast('cpu', torch.bfloat16):
        layer(x)
        layer(x)
    # The input needs no gradient, so its product does not keep the weight.
    assert counts.casts == 0
    x.requires_grad_()
    with counting(layer) as counts, torch.autocast('cpu', torch.bfloat16):
        layer(x) + layer(x)
    assert counts.casts == 4 * 8 * 2


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
    data = task_of_config(cfg).protocol.batch(cfg, 2, training=True)
    data = model.data_preprocessor(data, True)
    loss, _ = model.parse_losses(ddp(**data, mode='loss'))
    loss.backward()
    assert sum(buckets) == demo.gradients > 0
