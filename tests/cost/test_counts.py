"""What is counted equals what torch counts, what is computed by hand, and what is saved."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lm4ve.cost.counting import ATTENTION, PARTS, StepCounter
from lm4ve.cost.imagining import imagined
from tests.helpers import models

#: torch has no formula for attention on CPUs; its counter takes ours.
CUSTOM = {
    packet: lambda *a, out_val=None, f=formula, **k: f(*a, **k)
    for packet, formula in ATTENTION.items()
}
for formula in CUSTOM.values():
    formula._get_raw = True


def train(model, data):
    if isinstance(data['inputs'], list):
        data = dict(data, inputs=[x[:1] if x.dim() == 5 else x for x in data['inputs']])  # a view
    data = model.data_preprocessor(data, True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()


def count(task, **options):
    model, data = models.build(task, **options)
    counter = StepCounter(model.train())
    with counter.counting() as counts:
        train(model, data)
    return counts


@pytest.mark.parametrize('task', models.TASKS)
def test_operations_are_those_of_torchs_counter(task):
    model, data = models.build(task)
    with FlopCounterMode(display=False, custom_mapping=CUSTOM) as expected:
        train(model.train(), data)
    found = count(task)
    assert found.total_macs() == expected.get_total_flops() // 2 > 0
    assert found.total_macs() == sum(found.total_macs(p) for p in PARTS)
    assert found.total_macs(backward=True) > found.total_macs(backward=False)


def test_a_model_without_numbers_is_counted_as_a_real_one():
    real = count('image')
    with imagined():
        model, data = models.image()
        counter = StepCounter(model.train())
        with counter.counting() as counts:
            train(model, data)
    assert counts.macs == real.macs and counts.saved == real.saved


@pytest.mark.parametrize('task, extra', [('video', 0), ('pointcloud', 1)])
def test_tokens_that_a_step_draws_are_counted_and_no_others(task, extra):
    options = dict(train_queries=0.5, num_extra_tokens=extra, low_rank='off')
    model, data = models.build(task, **options)
    with FlopCounterMode(display=False, custom_mapping=CUSTOM) as expected:
        train(model.train(), data)
    found, exact = count(task, **options), count(task, low_rank='off')
    assert found.total_macs() == expected.get_total_flops() // 2
    # The second mapper sees half of the tokens, and the class token where there is one.
    batch, channels, tokens = 2, 16, 32 if task == 'video' else 6
    computed = batch * (extra + tokens // 2)
    both = 3 * models.D * channels  # forward, and both gradients
    first = both * batch * (extra + tokens)
    assert found.total_macs('mappers') == first + both * computed
    assert exact.total_macs('mappers') == 2 * first


def test_each_part_gets_its_own_operations():
    """A ViT of 25 tokens, of which the head and the second mapper see one."""
    batch, channels, width, classes = 2, 16, models.D, 3
    found, plain = count('image'), count('image', block=False)
    assert found.total_macs('head', False) == batch * channels * classes
    assert found.total_macs('head', True) == 2 * batch * channels * classes
    assert found.total_macs('mappers', False) == batch * width * channels
    assert found.total_macs('mappers', True) == 2 * batch * width * channels
    assert found.total_macs('backbone') == plain.total_macs('backbone')
    assert plain.total_macs('block') == plain.total_macs('mappers') == 0
    assert found.total_macs('block') > 0


def test_what_is_kept_for_the_backward_pass_is_counted_once():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    counter = StepCounter(model)
    with counter.counting() as counts:
        model(torch.randn(5, 4)).sum().backward()
    # The input, and the ReLU's output, which is the second layer's input too.
    assert counts.saved == {torch.float32: 4 * 5 * (4 + 8)}


def test_memory_that_is_let_go_is_not_a_part_of_the_peak():
    counter = StepCounter(nn.Linear(1, 1))
    x = torch.zeros(1000)
    with counter.counting() as counts:
        a = x + 1
        b = a.half()
        del a
        b + 1
    assert counts.peak == {torch.float32: 4000, torch.float16: 2000}
