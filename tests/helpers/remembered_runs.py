"""Forget what MMEngine remembers of runs in this process.

A logger, a hub and a visualizer outlive their run, under a name made of the second in
which it began: a second run in that second would write into the files of the first.
"""

from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer


def forget_runs() -> None:
    """Forget the scopes, loggers, hubs and visualizers of earlier runs."""
    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
        _forget_instances(manager)


def _forget_instances(manager: type) -> None:
    """Forget the instances of a class and of all that inherit from it.

    Each class has a dict of its own.
    """
    manager._instance_dict.clear()  # type: ignore[attr-defined]
    for child in manager.__subclasses__():
        _forget_instances(child)
