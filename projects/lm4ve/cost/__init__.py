"""What a training step costs: operations, memory and time, without weights or a GPU.

:func:`cost_of_step` builds a config's model at full size under torch's ``FakeTensorMode``,
runs a training step and counts. How a batch is made is said by the task
(:mod:`lm4ve.tasks.base.batches`).
"""

from lm4ve.cost.prediction import Rates, measure_rates, predict_seconds, read_rates
from lm4ve.cost.step import StepCost, cost_of_step

__all__ = ['Rates', 'StepCost', 'cost_of_step', 'measure_rates', 'predict_seconds', 'read_rates']
