"""The schedule of batch norms in SQA3D's release."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from lm4ve.registry import HOOKS


@HOOKS.register_module()
class BatchNormMomentumHook(Hook):
    """Set the momentum of a model's batch norms, and multiply it at milestones.

    It follows from the number of the step alone, so a resumed training has the same.

    Args:
        momentum (float): Of the first steps.
        milestones (Sequence[int]): After so many steps it is multiplied by ``gamma``.
        gamma (float): The factor at each milestone.
    """

    def __init__(
        self, momentum: float, milestones: Sequence[int] = (), gamma: float = 0.5
    ) -> None:
        self.momentum = momentum
        self.milestones = milestones
        self.gamma = gamma

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set the momentum of this step."""
        num_passed = sum(milestone <= runner.iter for milestone in self.milestones)
        momentum = self.momentum * self.gamma**num_passed
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = momentum
