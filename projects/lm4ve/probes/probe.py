"""Probe a config's model at its training samples, for one layer of the block after another."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from torch import Tensor

from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.layouts import to_tokens
from lm4ve.probes.measures import Coherence, linear_cka
from lm4ve.runner.command_line import build_runner
from lm4ve.runner.neck_progress import following


@dataclass(frozen=True)
class Probe:
    """What was measured of a model.

    Attributes:
        layer (int | None): The language model's layer that is the block; None: there is none.
        seed (int | None): It sets the model's weights, its training and the samples. With None the
            weights and the training are random, and the samples are those of seed 0.
        coherence (float): Mean cosine of the gradients of all pairs of samples, with
            respect to what trains outside of neck and head.
        similarity (float | None): Linear CKA of the tokens before the neck and after the block.
    """

    layer: int | None
    seed: int | None
    coherence: float
    similarity: float | None

    def row(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def probe_layers(
    cfg: Config, layers: Sequence[int], samples: int, steps: int, base: Config | None = None
) -> Iterator[Probe]:
    """Measure the model without a block, and with each layer as its block.

    All have the encoder's weights of the same seed, the config's ``randomness.seed``, and see the
    same samples, which that seed draws.

    Args:
        cfg (Config): With an ``LLMBlockNeck`` as ``model.neck``, adapted to the machine.
        layers (Sequence[int]): Which layers of its language model become the block in turn.
        samples (int): How many training samples.
        steps (int): Training steps before, at the config's rate without a schedule.
        base (Config, optional): The model without a block.

    Raises:
        UserError: The config has no ``LLMBlock``.
    """
    if base is not None:
        yield _probe(base, None, samples, steps)
    for layer in layers:
        one = copy.deepcopy(cfg)
        block = (one.model.get('neck') or {}).get('block')
        if not isinstance(block, dict) or str(block.get('type')).rpartition('.')[2] != 'LLMBlock':
            raise UserError(
                'The config has no model.neck with an LLMBlock, whose layers could be probed. Fix: '
                'name a config with a block, and the one without it by --base.'
            )
        block['layers'] = (layer,)
        yield _probe(one, layer, samples, steps)


def _probe(cfg: Config, layer: int | None, samples: int, steps: int) -> Probe:
    runner, seed = _runner(cfg, steps), (cfg.get('randomness') or {}).get('seed')
    if steps:
        runner.train()
    else:
        runner.model.init_weights()
    model, batches = runner.model.eval(), list(_batches(runner, samples, seed or 0))
    for neck in following(model):
        neck.train().set_progress(0.0)
        neck.block.eval()
    coherence = Coherence()
    for batch in batches:
        coherence.add(_gradient(model, batch))
    similarity = None if layer is None else _similarity(model, batches)
    return Probe(layer, seed, coherence.value(), similarity)


def _runner(cfg: Config, steps: int) -> Runner:
    """Build a runner for some steps, which writes no checkpoint and validates nothing."""
    cfg = copy.deepcopy(cfg)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=max(1, steps))
    cfg.param_scheduler, cfg.custom_hooks, cfg.resume = None, None, False
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hooks.checkpoint = None
    hooks.logger = ConfigDict(type='LoggerHook', interval=max(1, steps))
    cfg.log_processor = ConfigDict(by_epoch=False)
    cfg.log_level = 'WARNING'
    return build_runner(cfg)


def _batches(runner: Runner, samples: int, seed: int) -> Iterator[Any]:
    """Yield training samples, each as a batch; the same ones of a data set for a seed.

    Raises:
        UserError: The data set has fewer.
    """
    cfg = copy.deepcopy(runner.cfg.train_dataloader)
    cfg.update(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(cfg, seed=0)
    if len(loader.dataset) < samples:
        raise UserError(
            f'The training set has {len(loader.dataset)} samples, --samples asks for {samples}. '
            'Fix: ask for fewer.'
        )
    for i in np.random.default_rng(seed).permutation(len(loader.dataset))[:samples]:
        np.random.seed(int(i))
        torch.manual_seed(int(i))
        yield loader.collate_fn([loader.dataset[int(i)]])


def _gradient(model: Any, batch: Any) -> Tensor:
    """Return the gradient of a batch's loss by what trains before neck and head, ``[p]``.

    Raises:
        UserError: Nothing trains there, or the gradient is zero.
    """
    parameters = [p for n, p in model.named_parameters() if p.requires_grad and _is_encoder(n)]
    if not parameters:
        raise UserError(
            'Nothing of the model trains before its neck and head, so that there are no gradients '
            'to compare. Fix: probe a config whose encoder trains.'
        )
    data = model.data_preprocessor(batch, True)
    with torch.enable_grad():
        loss, _ = model.parse_losses(model(**data, mode='loss'))
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    parts = zip(parameters, gradients, strict=True)
    found = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in parts])
    if not found.any():
        raise UserError(
            "The encoder's gradient is zero: many heads begin with weights of zero, which let no "
            'gradient through. Fix: --steps 50 trains a little before.'
        )
    return found


def _is_encoder(name: str) -> bool:
    return not any(part in ('neck', 'head', 'cls_head') for part in name.split('.'))


@torch.no_grad()
def _similarity(model: Any, batches: Sequence[Any]) -> float:
    """Return the linear CKA of tokens before the neck and after its block."""
    (neck,) = [m for m in model.modules() if isinstance(m, LLMBlockNeck)]
    before, after = [], []

    def take_before(module: LLMBlockNeck, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = module.pick(args[0] if args else kwargs['feats'])
        before.append(to_tokens(x, module.in_channels, module.layout).tokens.flatten(0, 1))

    with ExitStack() as stack:
        stack.enter_context(neck.observe())
        for handle in (
            neck.register_forward_pre_hook(take_before, with_kwargs=True),
            neck.block.register_forward_hook(lambda *a: after.append(a[-1].flatten(0, 1))),
        ):
            stack.callback(handle.remove)
        for batch in batches:
            model(**model.data_preprocessor(batch, True), mode='loss')
    return linear_cka(torch.cat(before).float(), torch.cat(after).float())
