"""A hook for tests that train in other processes: losses and weights to JSON."""

import hashlib
import json
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RecordHook(Hook):
    """Write each step's loss (mean over ranks) and the final weights' hash.

    Args:
        out (str): Folder; each rank writes ``rank<r>.json``.
    """

    priority = 'LOWEST'

    def __init__(self, out: str) -> None:
        self.out = Path(out)
        self.losses: list = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().clone()
        all_reduce(loss, 'mean')
        self.losses.append(loss.item())

    def after_train(self, runner) -> None:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        from lm4ve.blocks import frozen_tensors

        digest = {}
        for kind, tensors in (
            ('trained', dict(model.named_parameters())),
            ('frozen', frozen_tensors(model)),
        ):
            sha = hashlib.sha256()
            for name, tensor in sorted(tensors.items()):
                sha.update(name.encode())
                sha.update(tensor.detach().contiguous().view(torch.uint8).numpy())
            digest[kind] = sha.hexdigest()
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f'rank{get_rank()}.json').write_text(
            json.dumps(dict(losses=self.losses, **digest))
        )
