"""The cost of a training step and of a training, without weights or a GPU.

:func:`cost_of_step` builds a config's model at full size under torch's
``FakeTensorMode`` and counts operations, memory and traffic of one training step. The
task makes the batch (:mod:`lm4ve.tasks.base.protocol`). From these counts
:func:`estimate_training` estimates memory, seconds of a step and hours on a GPU.
"""

from lm4ve.cost.devices import GPUS, Gpu
from lm4ve.cost.estimate import TrainingEstimate, estimate_training, seconds_of_step
from lm4ve.cost.length import length_of_training
from lm4ve.cost.step import StepCost, cost_of_step

__all__ = [
    'GPUS',
    'Gpu',
    'StepCost',
    'TrainingEstimate',
    'cost_of_step',
    'estimate_training',
    'length_of_training',
    'seconds_of_step',
]
