"""A model of MMEngine with a neck, and its Runner."""

from pathlib import Path

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner

from tests.helpers.models import neck
from tests.helpers.runner import toy
from tests.helpers.runner.toy import CHECKPOINT


class Toy(BaseModel):
    """Any MMEngine model with the neck in it: no host framework needed."""

    def __init__(self) -> None:
        values = dict(Linear=0.5, LlamaRMSNorm=9.0).items()
        super().__init__(
            init_cfg=[dict(type='Constant', layer=k, val=v) for k, v in values]
        )
        self.stem = torch.nn.Linear(4, 8)
        self.neck = MODELS.build(neck(8, out_type='avg_featmap'))

    def forward(self, inputs, mode='tensor'):
        out = self.neck(self.stem(torch.stack(list(inputs))))
        return dict(loss=(out - 1).square().mean()) if mode == 'loss' else out


DATA = [dict(inputs=torch.randn(3, 4)) for _ in range(8)]
BATCH_SIZE = 4
STEPS_PER_EPOCH = len(DATA) // BATCH_SIZE


def make_runner(
    work_dir: Path, epochs=2, plain=True, model=None, hooks=(), **kwargs
) -> Runner:
    """Build a Runner that trains on :data:`DATA` and keeps the last two checkpoints.

    Args:
        work_dir (Path): For its checkpoints.
        epochs (int): How long it trains.
        plain (bool): It has ``PlainCheckpointHook``.
        model (nn.Module, optional): Default: a new :class:`Toy`.
        hooks (Sequence[dict]): Configs of more hooks.
        **kwargs: More arguments of the Runner.
    """
    default_hooks = dict(checkpoint=dict(CHECKPOINT, by_epoch=True, max_keep_ckpts=2))
    default_hooks['logger'] = dict(type='LoggerHook', interval=1)
    if plain:
        default_hooks['plain'] = dict(type='lm4ve.PlainCheckpointHook')
    steps = dict(total_steps=epochs, convert_to_iter_based=True)
    kwargs |= dict(default_hooks=default_hooks, custom_hooks=list(hooks))
    kwargs['train_cfg'] = dict(by_epoch=True, max_epochs=epochs)
    kwargs['param_scheduler'] = dict(type='OneCycleLR', eta_max=1e-3, **steps)
    if model is None:
        model = Toy()
    return toy.make_runner(work_dir, model, DATA, BATCH_SIZE, **kwargs)
