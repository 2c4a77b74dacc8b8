"""Let all processes validate with the running statistics that the checkpoint has.

Each process of a training updates the running means and variances of its batch norms by
its own samples, and a checkpoint holds those of the first one. torch's
``DistributedDataParallel`` copies them to the others in every step; MMEngine switches
that off. Then the processes validate different models, and the score is not that of the
checkpoint.
"""

from collections.abc import Iterator

from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class RunningStatisticsHook(Hook):  # type: ignore[misc]
    """Copy the running statistics of the first process to the others before a validation.

    A training step does not read them, so the copies that differ between two validations
    have no effect. With MMEngine's ``SyncBuffersHook``, which takes means, they are
    equal already.
    """

    # After the hooks that change the statistics or swap in an average of the weights.
    priority = 'LOW'

    def before_val_epoch(self, runner: Runner) -> None:
        """Copy the statistics."""
        copy_statistics(runner.model)

    def before_test_epoch(self, runner: Runner) -> None:
        """Copy the statistics: a test may follow a training without a checkpoint."""
        copy_statistics(runner.model)


def copy_statistics(model: nn.Module) -> None:
    """Copy a model's running statistics from the first process to the others.

    Args:
        model (nn.Module): Changed in place; it has the same norms in all processes.
    """
    if get_world_size() == 1:
        return
    for statistics in running_statistics(model):
        broadcast(statistics)


def running_statistics(model: nn.Module) -> Iterator[Tensor]:
    """Yield the buffers of a model's batch and instance norms, of shapes [channels] and []."""
    for module in model.modules():
        if isinstance(module, _NormBase):
            yield from module.buffers(recurse=False)
