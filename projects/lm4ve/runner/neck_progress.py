"""Necks are told how far a training has come.

A neck whose block is a branch with a falling weight, or whose part of the tokens grows,
depends on the number of the step and on how many there are; only a runner knows both.
What it is told depends on the step alone, so that a resumed run goes on as it would have.
"""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from lm4ve.necks import LLMBlockNeck
from lm4ve.registry import HOOKS


@HOOKS.register_module()
class NeckProgressHook(Hook):  # type: ignore[misc]
    """Set the progress of each neck that follows it, before each training step.

    Runners that our tools build have it where a neck needs it.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Find the necks."""
        self._necks = [*following(runner.model)]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Tell them, from 0 in the first step to 1 in the last."""
        for neck in self._necks:
            neck.set_progress(runner.iter / max(1, runner.max_iters - 1))


def following(model: Any) -> list[LLMBlockNeck]:
    """Return a model's necks that follow the progress of training."""
    return [m for m in model.modules() if isinstance(m, LLMBlockNeck) and m.follows_progress]


def follow_progress(runner: Runner) -> None:
    """Give a runner the hook if its model needs it and its config does not name it.

    A runner that builds its model later (MMEngine's FlexibleRunner) has it in any case.
    """
    named = any(isinstance(h, NeckProgressHook) for h in runner.hooks)
    unknown = not isinstance(runner.model, nn.Module)
    if not named and (unknown or following(runner.model)):
        runner.register_hook(NeckProgressHook())
