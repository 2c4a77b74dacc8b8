"""What GPUs send each other in a step: as DDP's own buckets and a ring that is simulated."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lm4ve.commands.cost import main
from lm4ve.cost import cost_of_step
from lm4ve.cost.imagining import build_imagined, imagined_config
from lm4ve.cost.scaling import TABLE, page_table, scaling_rows, seconds_on_link, traffic
from lm4ve.runner.config import read_config
from lm4ve.tasks import task_of_config
from tests.helpers.tasks import CONFIGS, ROOT

DEMO = CONFIGS / 'motion/vectornet-demo_minilm_sim.py'
PAGE = (ROOT / 'docs/results/scaling.md').read_text()


@pytest.fixture(scope='module')
def cost():
    return cost_of_step(read_config(DEMO), 2)


@pytest.fixture
def group(tmp_path):
    dist.init_process_group('gloo', f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_ddp_reduces_as_many_bytes_as_are_counted(cost, group):
    """A real model with a frozen block; the hook sees each bucket before it is sent."""
    cfg = imagined_config(read_config(DEMO))
    model = build_imagined(cfg)
    ddp, buckets = DistributedDataParallel(model), []

    def hook(state, bucket):
        buckets.append(bucket.buffer().nbytes)
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    ddp.register_comm_hook(None, hook)
    data = task_of_config(cfg).batches.batch(cfg, 2, training=True)
    loss, _ = model.parse_losses(ddp(**model.data_preprocessor(data, True), mode='loss'))
    loss.backward()
    assert sum(buckets) == cost.gradients > 0
    assert cost.fixed == 4 * cost.frozen > 0  # the block, in fp32


@pytest.mark.parametrize('gpus', [1, 2, 4, 8])
def test_a_ring_sends_what_the_formula_says(cost, gpus):
    """Each rank sends one of N parts to the next one, N - 1 times to add and again to share."""
    values = np.random.default_rng(0).integers(0, 9, (gpus, gpus * 3))
    parts, sent = values.reshape(gpus, gpus, 3).copy(), np.zeros(gpus)
    for shift in range(2 * (gpus - 1)):
        before = parts.copy()
        for rank in range(gpus):
            k, to = (rank - shift) % gpus, (rank + 1) % gpus
            adds = shift < gpus - 1
            parts[to, k] = before[rank, k] + (before[to, k] if adds else 0)
            sent[rank] += 3
    assert (parts.reshape(gpus, -1) == values.sum(0)).all()
    found = traffic(cost, gpus)
    assert found.data_parallel == pytest.approx(sent[0] / (gpus * 3) * cost.gradients)
    # Of FSDP: two gatherings of parameters, and one scattering, each half of that.
    assert found.sharded == pytest.approx(1.5 * found.data_parallel)


def test_frozen_weights_are_never_sent(cost):
    found = traffic(cost, 8)
    assert found.with_frozen - found.data_parallel == pytest.approx(2 * 7 / 8 * cost.fixed)
    assert found.sharded_block - found.sharded == pytest.approx(2 * 7 / 8 * cost.fixed)


def test_a_link_takes_its_time(cost):
    assert seconds_on_link(1e9, 8) == 1
    (row,) = scaling_rows(cost, [8], 100)
    wait = float(row['DDP at 100 Gbit/s [ms]'])
    assert wait == pytest.approx(2 * 7 / 8 * cost.gradients * 8 / 1e11 * 1e3, abs=0.051)


def test_the_command_tells_it(capsys):
    main([str(DEMO), '--batch', '2', '--gpus', '8', '512'])
    assert '512' in (said := capsys.readouterr().out) and 'what each GPU sends' in said


def test_a_row_of_the_page_is_what_the_tool_writes_now():
    """All rows take minutes: python tools/dev/write_cost.py --check."""
    assert TABLE in PAGE
    row = page_table(CONFIGS, ['motion/vectornet_llama_argoverse1.py']).splitlines()[-1]
    assert row in PAGE.splitlines()
