"""Measures a training step on one core, to compare with its estimate."""

import statistics
import time

import torch
from mmengine.config import Config

from lm4ve.cost.cpu import one_thread
from lm4ve.cost.fake import build_fake, fake_config
from lm4ve.cost.step import batch_of, loss_of, optimizer_of
from lm4ve.tasks import task_of_config


def measure_step(cfg: Config, batch: int | None = None, rounds: int = 5) -> float:
    """Train a model with random weights on one core for some steps.

    Args:
        cfg (Config): See :func:`lm4ve.cost.step.cost_of_step`.
        batch (int, optional): Samples of a step; default: the config's.
        rounds (int): Measured steps.

    Returns:
        float: The median of the steps' seconds of CPU time. The first step is left out.
    """
    cfg = fake_config(cfg)
    if batch is None:
        batch = batch_of(cfg)
    data = task_of_config(cfg).batches.batch(cfg, batch, training=True)
    with one_thread(), torch.random.fork_rng(devices=()):
        model = build_fake(cfg)
        optimizer = optimizer_of(cfg, model)
        seconds = []
        for _ in range(1 + rounds):
            start = time.process_time()
            optimizer.zero_grad()
            loss_of(model, data).backward()
            optimizer.step()
            seconds.append(time.process_time() - start)
    return statistics.median(seconds[1:])
