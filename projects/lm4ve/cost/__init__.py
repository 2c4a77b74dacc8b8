"""The cost of a training step: operations, memory and traffic, without weights or a GPU.

:func:`cost_of_step` builds a config's model at full size under torch's
``FakeTensorMode`` and counts the operations of one training step. The task makes the
batch (:mod:`lm4ve.tasks.base.batches`).
"""

from lm4ve.cost.step import StepCost, cost_of_step

__all__ = ['StepCost', 'cost_of_step']
