"""However weights change, an evaluation never uses what was folded of the old ones."""

import copy
import ctypes
import io
import pickle
import threading
from collections.abc import Callable

import mmengine.model as averages
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lm4ve.blocks import frozen_tensors
from tests.helpers.folds import METHODS, check, every_data, folded, neck_of, plain, tokens


def step(optimizer: type, **options) -> Callable:
    """One step with gradients that no forward pass has made."""

    def change(neck):
        for p in neck.parameters():
            p.grad = torch.ones_like(p)
        optimizer(neck.parameters(), lr=0.3, **options).step()

    return change


def every(write: Callable) -> Callable:
    def change(neck):
        with torch.no_grad():
            for p in neck.parameters():
                write(p)

    return change


def other_state(neck) -> dict:
    return {k: v * 1.5 if v.is_floating_point() else v for k, v in neck.state_dict().items()}


def load(neck, **options):
    neck.load_state_dict(other_state(neck), **options)


def load_file(neck):
    file = io.BytesIO()
    torch.save(other_state(neck), file)
    file.seek(0)
    neck.load_state_dict(torch.load(file, weights_only=True))


def swap_average(name: str) -> Callable:
    """Exchange weights and average as EMA hooks do, by the values of ``.data``."""

    def change(neck):
        average = getattr(averages, name)(neck)
        for p in average.module.parameters():
            p.data.mul_(1.5)
        for p, a in zip(neck.parameters(), average.module.parameters(), strict=True):
            tmp = p.data.clone()
            p.data.copy_(a.data)
            a.data.copy_(tmp)

    return change


def set_storage(neck):
    with torch.no_grad():
        for p in neck.parameters():
            p.set_((p * 1.5).clone())


def swap(neck):
    for module in neck.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            torch.utils.swap_tensors(module._parameters[name], nn.Parameter(p.detach() * 1.5))


def assign_parameters(neck):
    for module in neck.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(p.detach() * 1.5))


def replace_data(neck):
    for p in neck.parameters():
        p.data = p.data * 1.5


def through_vector(neck):
    vector_to_parameters(parameters_to_vector(neck.parameters()) * 1.5, neck.parameters())


def through_numpy(neck):
    for p in neck.parameters():
        view = p.detach().numpy()
        view *= 1.5


def through_dlpack(neck):
    for p in neck.parameters():
        torch.from_dlpack(p.detach()).mul_(1.5)


def through_storage(neck):
    weight = neck.mapper_in.weight
    values = torch.tensor([], dtype=weight.dtype).set_(weight.untyped_storage())
    values.mul_(1.5)


def through_buffer(neck):
    np.frombuffer(memoryview(neck.mapper_in.weight.detach().numpy()), dtype=np.float32)
    array = np.asarray(neck.mapper_in.weight.detach())
    np.multiply(array, 1.5, out=array)


def through_memory(neck):
    for p in neck.parameters():
        values = np.ascontiguousarray(p.detach().numpy() * 1.5)
        ctypes.memmove(p.data_ptr(), values.ctypes.data, values.nbytes)


def foreach(neck):
    with torch.no_grad():
        torch._foreach_mul_(list(neck.parameters()), 1.5)


def foreach_data(neck):
    torch._foreach_mul_([p.data for p in neck.parameters()], 1.5)


def there_and_back(neck):
    every_data(lambda t: t.mul_(1.5))(neck)
    neck.double().float()


def replaced_twice(neck):
    """The second time into the memory that the first one has left."""
    for factor in (3.0, 0.5):
        for p in neck.parameters():
            p.data = p.data * factor


def in_shared_memory(neck):
    neck.share_memory()
    every_data(lambda t: t.mul_(1.5))(neck)


def parametrized(neck):
    class Scaled(nn.Module):
        def forward(self, weight):
            return weight * 1.5

    torch.nn.utils.parametrize.register_parametrization(neck.mapper_in, 'weight', Scaled())


def under_autocast(neck):
    with torch.autocast('cpu', torch.bfloat16):
        every_data(lambda t: t.mul_(1.5))(neck)


def in_a_thread(neck):
    thread = threading.Thread(target=every_data(lambda t: t.mul_(1.5)), args=(neck,))
    thread.start()
    thread.join()


def in_inference_mode(neck):
    with torch.inference_mode():
        for p in neck.parameters():
            p.data.mul_(1.5)


def one_weight(neck):
    neck.mapper_in.weight.data[1, 2] += 1.0


def one_gain(neck):
    neck.block.layers[0].attention_norm.weight.data[3] += 1.0


def flipped(neck):
    neck.mapper_in.weight.data.copy_(neck.mapper_in.weight.data.flip(1).clone())


def frozen(neck):
    for t in frozen_tensors(neck).values():
        t.data.mul_(1.5)


def frozen_flipped(neck):
    for t in frozen_tensors(neck).values():
        t.data.copy_(t.data.flip(0).clone())


def projection(neck):
    neck.block.layers[0].k_proj.weight.data.mul_(-1.0)


def norm_of_attention(neck):
    neck.block.layers[0].attention_norm.bias.data.add_(1.0)


OPTIMIZERS = {
    f'{kind.__name__}, {how}': step(kind, **({} if how == 'loop' else {how: True}))
    for kind in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad)
    for how in ('fused', 'foreach', 'loop')
}
TRAINED = {
    **OPTIMIZERS,
    'RMSprop, foreach': step(torch.optim.RMSprop, foreach=True),
    'data.mul_': every_data(lambda t: t.mul_(1.5)),
    'data.add_': every_data(lambda t: t.add_(0.5)),
    'data.copy_': every_data(lambda t: t.copy_(torch.randn_like(t))),
    'data.lerp_': every_data(lambda t: t.lerp_(torch.randn_like(t), 0.5)),
    'data[...]': every_data(lambda t: t.__setitem__(..., 0.25)),
    'data.fill_': every_data(lambda t: t.fill_(0.1)),
    'detach().mul_': every(lambda p: p.detach().mul_(1.5)),
    'copy_': every(lambda p: p.copy_(p * 1.5)),
    'nn.init': every(lambda p: nn.init.normal_(p)),
    'replaced data': replace_data,
    'data replaced twice': replaced_twice,
    'memory': through_memory,
    'shared memory': in_shared_memory,
    'a parametrization': parametrized,
    'data under autocast': under_autocast,
    'data in a thread': in_a_thread,
    'replaced parameters': assign_parameters,
    'load_state_dict': load,
    'load_state_dict(assign=True)': lambda neck: load(neck, assign=True),
    'a file': load_file,
    'vector_to_parameters': through_vector,
    'set_': set_storage,
    'swap_tensors': swap,
    'numpy': through_numpy,
    'numpy, out=': through_buffer,
    'dlpack': through_dlpack,
    'storage': through_storage,
    '_foreach_mul_': foreach,
    '_foreach_mul_ of data': foreach_data,
    'a cast and back after a write': there_and_back,
    'inference mode': in_inference_mode,
    'one weight': one_weight,
    'a permutation': flipped,
    'ExponentialMovingAverage': swap_average('ExponentialMovingAverage'),
    'StochasticWeightAverage': swap_average('StochasticWeightAverage'),
    'MomentumAnnealingEMA': swap_average('MomentumAnnealingEMA'),
    'a projection': projection,
    'a norm': norm_of_attention,
    'one gain': one_gain,
}
FROZEN = {
    k: TRAINED[k]
    for k in ('AdamW, fused', 'data.mul_', 'a file', 'one weight', 'a permutation', 'swap_tensors')
} | {'frozen data': frozen, 'a permutation of frozen data': frozen_flipped}


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('change', TRAINED.values(), ids=TRAINED)
def test_trained_weights(checkpoints, change, method):
    check(neck_of(checkpoints, method, trainable='all'), change)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('change', FROZEN.values(), ids=FROZEN)
def test_weights_around_a_frozen_block(checkpoints, change, method):
    check(neck_of(checkpoints, method), change)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda neck: pickle.loads(pickle.dumps(neck))], ids=['deep', 'pickle']
)
def test_copies_have_weights_of_their_own(checkpoints, copied, method):
    neck = neck_of(checkpoints, method)
    before = folded(neck)
    twin = copied(neck)
    every_data(lambda t: t.mul_(1.5))(twin)
    torch.testing.assert_close(folded(twin), plain(twin), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folded(neck), before)


@pytest.mark.parametrize('method', METHODS)
def test_a_functional_call_uses_what_it_is_given(checkpoints, method):
    neck = neck_of(checkpoints, method)
    before = folded(neck)
    other = {k: v * 1.5 for k, v in neck.named_parameters()}
    with torch.no_grad():
        called = torch.func.functional_call(neck, other, (tokens(), None, slice(0, 2)))
    torch.testing.assert_close(folded(neck), before)
    every_data(lambda t: t.mul_(1.5))(neck)
    torch.testing.assert_close(called, plain(neck), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('begin', [nn.Module.eval, nn.Module.train])
def test_a_fold_ends_where_evaluation_or_training_begins(checkpoints, begin):
    neck = neck_of(checkpoints, 'fold')
    folded(neck)
    assert neck.block._fold_memory._values
    begin(nn.Sequential(neck))
    assert not neck.block._fold_memory._values
