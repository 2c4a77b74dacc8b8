"""Estimates of seconds and hours against rooflines and lengths computed by hand."""

import pytest
import torch

from lm4ve.cost import estimate_training, length_of_training, seconds_of_step
from lm4ve.cost.devices import GPUS
from lm4ve.cost.estimate import StepSeconds
from lm4ve.cost.operations import Operation, Recorder
from lm4ve.cost.step import batch_of, cost_of_step
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import run_lm4ve

A100 = GPUS['a100']
MOTION = CONFIGS / 'motion/vectornet-demo_minilm_sim.py'


@pytest.fixture(scope='module')
def motion():
    return cost_of_step(read_config(MOTION), 2)


def operation(**fields):
    return Operation(
        **{
            'name': 'mm',
            'phase': 'forward',
            'dtype': torch.float16,
            'macs': 0,
            'moved': 4,
            **fields,
        }
    )


# ------------------------------------------------------------------ operators
def test_a_product_takes_as_long_as_its_multiply_accumulates():
    seconds = A100.seconds_of(operation(macs=10**12))
    assert seconds == pytest.approx(1e12 / (312e12 / 2 * A100.share_of_macs))
    assert A100.seconds_of(operation(macs=10**12, dtype=torch.float32)) == (
        pytest.approx(seconds * 312 / 19.5)
    )


def test_an_elementwise_operator_takes_as_long_as_its_bytes():
    seconds = A100.seconds_of(operation(name='add', moved=10**10))
    assert seconds == pytest.approx(1e10 / (2039e9 * A100.share_of_bandwidth))


def test_a_small_operator_takes_as_long_as_its_launch():
    assert A100.seconds_of(operation(name='add')) == A100.call


def test_views_cost_nothing_and_results_count_once():
    x = torch.randn(3, 5)
    with Recorder([x]) as recorder:
        (x.t()[1:] + 1).t()
    (only,) = recorder.calls
    assert only.name == 'add'
    assert only.moved == 2 * 12 * 4


def test_the_peak_is_that_of_what_exists_at_once():
    x = torch.zeros(1000)
    with Recorder([x]) as recorder:
        one = x + 1
        two = one + 1
        del one
        three = two + 1
        assert recorder.held == 8000
        del two, three
        assert recorder.held == 0
    assert recorder.peak == 8000


# ------------------------------------------------------------------- a step
def test_memory_adds_up_to_the_peak_and_has_what_the_config_keeps(motion):
    memory = motion.memory
    assert motion.peak == sum(memory.values())
    assert min(memory.values()) >= 0
    assert memory['weights'] == sum(motion.weights.values())
    # AdamW: two numbers of each parameter, and the count of its steps.
    assert motion.optimizer == pytest.approx(2 * motion.gradients, rel=1e-2)
    assert memory['average of the weights'] == 0


def test_the_copy_of_an_average_is_counted():
    cfg = read_config(MOTION)
    cfg.custom_hooks = [dict(type='EMAHook')]
    cost = cost_of_step(cfg, 2)
    assert cost.average == pytest.approx(cost.gradients, rel=0.05)
    assert cost.memory['average of the weights'] == cost.average


def test_amp_needs_less_memory_and_time_than_fp32():
    cfg = read_config(MOTION)
    full = estimate_training(cfg, 'a100', batch=64, samples=100)
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    half = estimate_training(cfg, 'a100', batch=64, samples=100)
    assert half.cost.amp == torch.float16
    assert half.peak < full.peak
    assert half.memory['loss scaler'] > 0


def test_repeated_clips_enlarge_the_batch():
    pytest.importorskip('mmaction')
    assert batch_of(read_config(CONFIGS / 'video/videomae-s_ssv2.py')) == 2 * 16


def test_sending_hides_behind_the_backward_pass():
    step = StepSeconds(forward=1.0, backward=2.0, update=0.5, sending=1.5)
    assert step.overlapped == 3.5
    assert step.one_after_the_other == 5.0
    slow = StepSeconds(forward=1.0, backward=2.0, update=0.5, sending=3.0)
    assert slow.overlapped == 4.5


def test_gradients_travel_by_the_link(motion):
    step = seconds_of_step(motion, A100, gpus=4)
    assert step.sending == pytest.approx(1.5 * motion.gradients / 300e9)
    assert seconds_of_step(motion, A100).sending == 0
    assert seconds_of_step(motion, A100, 4, 2).sending == step.sending / 2


# -------------------------------------------------------------------- lengths
def test_repeated_augmentation_has_no_incomplete_batch():
    pytest.importorskip('mmpretrain')
    cfg = read_config(CONFIGS / 'lm4ve/vit-s_in1k.py')
    # Of ImageNet's 1,281,167 pictures an epoch has 1,281,024.
    assert length_of_training(cfg, 4, samples=1_281_167).steps == 300 * 1251
    assert length_of_training(cfg, 8, samples=1_281_167).steps == 300 * 625


def test_samples_and_batch_decide_the_steps():
    cfg = read_config(MOTION)
    epochs = cfg.train_cfg.max_epochs
    assert length_of_training(cfg, 2, 8, 100).steps == epochs * 7
    cfg.train_dataloader.drop_last = True
    assert length_of_training(cfg, 2, 8, 100).steps == epochs * 6
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=10)
    assert length_of_training(cfg).steps == 10


def test_data_that_cannot_be_read_ask_for_samples():
    cfg = read_config(MOTION)
    cfg.train_dataloader.dataset = dict(type='lm4ve.MotionDataset', cache='nowhere')
    with pytest.raises(UserError, match='Fix: --samples N'):
        length_of_training(cfg)
    assert length_of_training(cfg, samples=7).samples == 7


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--device', 'a1000'], 'a1000.*a100'),
        (['--samples', '5'], '--samples needs --device'),
    ],
)
def test_flags_that_do_not_fit_are_refused_in_one_line(flags, message):
    with pytest.raises(UserError, match=message) as error:
        run_lm4ve('cost', [str(MOTION), *flags])
    assert '\n' not in str(error.value)


def test_the_command_calls_its_figures_estimates(capsys):
    run_lm4ve(
        'cost', [str(MOTION), '--batch', '2', '--device', 'h100', '--gpus', '1', '8']
    )
    printed = capsys.readouterr().out
    assert 'Estimate, not measured, on NVIDIA H100' in printed
    assert "optimizer's state" in printed
