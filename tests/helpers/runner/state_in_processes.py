"""What ``test_distributed_state.py`` runs in each of two processes: RANK and a folder.

FSDP2 splits a wrapped model; torch's own functions and ours save, load and check it.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import lm4ve
from lm4ve.errors import UserError
from tests.helpers.models import BLOCK
from tests.helpers.necks.encoder import Encoder, batch, wrapped

CONTROL = dict(type='MLPBlock', embed_dims=16)


def split(seed: int, block: dict, freeze: bool = False) -> Encoder:
    """Return an encoder with a neck whose weights FSDP2 splits between the two processes.

    Args:
        seed (int): That of all weights.
        block (dict): The config of the neck's block.
        freeze (bool): Train none of the weights of the encoder's own ``blocks``.
    """
    model = wrapped(block=block)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
        parameter.requires_grad_(not (freeze and name.startswith('blocks')))
    mesh = init_device_mesh('cpu', (2,))
    fully_shard(model.llm_neck, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def state_goes_through_files(folder: Path, block: dict) -> None:
    model = split(0, block)
    other = split(1, block)
    expected = model(batch())
    dcp.save(get_model_state_dict(model), checkpoint_id=folder / 'parts')
    state = get_model_state_dict(other)
    dcp.load(state, checkpoint_id=folder / 'parts')
    set_model_state_dict(other, state)
    assert torch.equal(other(batch()), expected)


def whole_state_goes_from_the_first_process_to_all(folder: Path, block: dict) -> None:
    model = split(0, block)
    other = split(1, block)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    assert bool(state) == (dist.get_rank() == 0)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(other, state, options=options)
    assert torch.equal(other(batch()), model(batch()))


def save_pretrained_writes_whole_tensors(folder: Path, block: dict) -> None:
    for freeze in (False, True):
        model = split(0, block, freeze)
        lm4ve.save_pretrained(model, folder / str(freeze))
        dist.barrier()
        encoder = Encoder()
        if freeze:
            whole = get_model_state_dict(
                model, options=StateDictOptions(full_state_dict=True)
            )
            # The file lacks what is frozen.
            frozen = {}
            for name, tensor in whole.items():
                if name.startswith('blocks'):
                    frozen[name] = tensor
            encoder.load_state_dict(frozen, strict=False)
        loaded = lm4ve.from_pretrained(encoder, folder / str(freeze))
        torch.testing.assert_close(loaded(batch()), model(batch()))


def training_equals_that_of_one_process(_: Path, block: dict) -> None:
    """Each process trains on a sample of its own, one process on both."""
    model = split(0, block)
    whole = StateDictOptions(full_state_dict=True)
    single = wrapped(block=block)
    single.load_state_dict(get_model_state_dict(model, options=whole))
    rank = dist.get_rank()
    train(model, batch()[rank : rank + 1])
    before = [p.detach().clone() for p in single.parameters()]
    train(single, batch())
    trained = get_model_state_dict(model, options=whole)
    for name, parameter in single.named_parameters():
        torch.testing.assert_close(trained[name], parameter.detach())
    after = single.parameters()
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert any(moved)


def train(model: nn.Module, inputs: torch.Tensor) -> None:
    """Take three steps on the mean of the squared outputs."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def gradients_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the whole gradients of a split model."""
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.full_tensor()
    return gradients


def model_with_gradients(block: dict) -> Encoder:
    """Return a split model in evaluation mode after a backward pass."""
    model = split(seed=0, block=block).eval()
    model(batch()).square().sum().backward()
    return model


def check_leaves_the_model_as_it_was(_: Path, block: dict) -> None:
    model = model_with_gradients(block)
    before = gradients_of(model)
    lm4ve.check(model, batch())
    after = gradients_of(model)
    assert not model.training
    assert before
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        assert torch.equal(gradient, after[name])


def without_gradient(module: nn.Module, args: tuple, out: tuple) -> tuple:
    """A forward hook of the encoder's ``pair``: detach its features; their number is not read."""
    features, _ = out
    return features.detach(), 0


def zeros(module: nn.Module, args: tuple, out: dict) -> dict:
    """A forward hook of the encoder's ``named``: replace its features by zeros."""
    (features,) = args
    return dict(features=features * 0)


def check_refuses_a_block_that_the_output_does_not_depend_on(
    _: Path, block: dict
) -> None:
    # The gradients of the backward pass before must not count as those of the check.
    model = model_with_gradients(block)
    # Both modules come after the neck.
    model.pair.register_forward_hook(without_gradient)
    model.named.register_forward_hook(zeros)
    try:
        lm4ve.check(model, batch())
    except UserError as e:
        assert 'does not reach the loss' in str(e)
    else:
        raise AssertionError('lm4ve.check passed a block without a part in the output')


def ddp_copies_no_record(_: Path, block: dict) -> None:
    """DistributedDataParallel copies buffers from the first process, but no neck's record.

    Records may differ in length, as the names of the folders of language models do, and
    a copy would fail.
    """
    model = wrapped(block=block)
    if dist.get_rank() == 1 and 'arch' in block:
        model.llm_neck.block.source['source'] = 'a name of another length'
    parallel = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    parallel(batch()).square().sum().backward()
    model.load_state_dict(model.state_dict())


if __name__ == '__main__':
    rank = int(sys.argv[1])
    folder = Path(sys.argv[2])
    torch.set_num_threads(1)
    place = f'file://{folder}/processes'
    dist.init_process_group('gloo', init_method=place, rank=rank, world_size=2)
    for kind, block in dict(llm=BLOCK, control=CONTROL).items():
        for run in (
            state_goes_through_files,
            whole_state_goes_from_the_first_process_to_all,
            training_equals_that_of_one_process,
            save_pretrained_writes_whole_tensors,
            check_leaves_the_model_as_it_was,
            check_refuses_a_block_that_the_output_does_not_depend_on,
            ddp_copies_no_record,
        ):
            run(folder / kind / run.__name__, block)
            dist.barrier()
    dist.destroy_process_group()
