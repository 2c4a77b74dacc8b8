"""Train a block's weights under FSDP's mixed precision, in a process of its own.

FSDP casts the weights that train for the time of a step. Each line that is printed is
the relative error of one way to wrap a neck, against the same neck in fp32.
"""

import copy
import json
from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import (
    MixedPrecision,
    MixedPrecisionPolicy,
    fully_shard,
)
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from lm4ve.blocks import LLMBlock
from lm4ve.necks import LLMBlockNeck
from tests.helpers.families import FAMILIES
from tests.helpers.processes import free_port

ARCH = dict(FAMILIES['llama'], initializer_range=0.3)


def sharded(model: nn.Module, **options) -> nn.Module:
    """Wrap a model by FSDP, with its weights in bfloat16 for a step."""
    precision = MixedPrecision(param_dtype=torch.bfloat16)
    cpu = torch.device('cpu')
    return FSDP(model, device_id=cpu, mixed_precision=precision, **options)


def sharded_by_fsdp2(model: nn.Module) -> nn.Module:
    mesh = distributed.device_mesh.init_device_mesh('cpu', (1,))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    return fully_shard(model, mesh=mesh, mp_policy=policy)


def in_parts(model: nn.Module) -> nn.Module:
    """Wrap the block by itself, and what is around it."""
    return sharded(
        model, use_orig_params=True, auto_wrap_policy=ModuleWrapPolicy({LLMBlock})
    )


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    'flat': lambda model: sharded(model, use_orig_params=False),
    'original': lambda model: sharded(model, use_orig_params=True),
    'in parts': in_parts,
    'fsdp2': sharded_by_fsdp2,
}


def step(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output of a training step."""
    out = model(x)
    out.float().square().sum().backward()
    return out.detach().float()


def main() -> None:
    address = f'tcp://127.0.0.1:{free_port()}'
    distributed.init_process_group('gloo', address, rank=0, world_size=1)
    for low_rank in ('off', 'fold'):
        torch.manual_seed(0)
        block = dict(type='LLMBlock', arch=ARCH, trainable='all')
        neck = LLMBlockNeck(16, block, low_rank=low_rank, norm_cfg=None)
        nn.init.normal_(neck.mapper_in.weight, std=0.5)
        x = torch.randn(2, 6, 16)
        expected = step(copy.deepcopy(neck), x)
        for wrapper, wrap in WRAPPERS.items():
            out = step(wrap(copy.deepcopy(neck)), x)
            error = (out - expected).norm() / expected.norm()
            print(json.dumps([f'{low_rank}, {wrapper}', error.item()]), flush=True)
    distributed.destroy_process_group()


if __name__ == '__main__':
    main()
