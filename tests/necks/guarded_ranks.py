"""One of two processes that train a model with and without use of its block; prints JSON.

python -m tests.necks.guarded_ranks RANK PORT
"""

import json
import sys

import torch
from torch import nn

from lm4ve.errors import UserError
from tests.necks.test_guard import Host, sgd, step


def wrap(kind: str, model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.nn.parallel import DistributedDataParallel

    cpu = torch.device('cpu')
    if kind == 'ddp':
        return DistributedDataParallel(model)
    if kind == 'ddp, unused':
        return DistributedDataParallel(model, find_unused_parameters=True)
    if kind == 'fsdp2':
        return fully_shard(model, mesh=init_device_mesh('cpu', (2,)))
    return FullyShardedDataParallel(model, device_id=cpu, use_orig_params=kind == 'fsdp, original')


KINDS = ('ddp', 'ddp, unused', 'fsdp', 'fsdp, original', 'fsdp2')


def main(rank: int, port: str) -> None:
    address = f'tcp://127.0.0.1:{port}'
    torch.distributed.init_process_group('gloo', address, rank=rank, world_size=2)
    found = {}
    for uses in ('yes', 'drops', 'never'):
        for kind in KINDS:
            model = wrap(kind, Host(uses))
            optimizer = sgd(model)
            try:
                for _ in range(2):
                    step(model, optimizer)
                found[f'{uses}: {kind}'] = ''
            except UserError as e:
                found[f'{uses}: {kind}'] = str(e)
    print(json.dumps(found))


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2])
