"""Let fields follow an override that they depend on.

A schedule that ends with the last epoch should do so after ``train_cfg.max_epochs`` was
overridden, and transforms should make pictures of the model's size. Only fields that
agreed before the override follow it.
"""

from typing import Any

from mmengine.config import Config

from lm4ve.runner.config.fields import is_number
from lm4ve.runner.config.schedules import (
    ENDS,
    find_one_cycle,
    rate_of_optimizer,
    schedules_in,
)

#: Fields of transforms and models that follow a config's ``image_size``.
_SIZES = ('scale', 'crop_size', 'image_size', 'img_size')
#: Endings of the names of top-level fields that contain them.
_HAVE_SIZES = ('model', '_dataloader', '_pipeline')


def follow_epochs(cfg: Config, before: Any, after: Any) -> None:
    """Make the schedules that ended with the last epoch end with the new last one.

    Args:
        cfg (Config): Changed in place.
        before: ``max_epochs`` before the override; nothing follows what is no number.
        after: ``max_epochs`` now.
    """
    if not is_number(before) or not is_number(after):
        return  # the check of the config reports it
    for _, schedule in schedules_in(cfg):
        if not schedule.get('by_epoch', True):
            continue
        begin = schedule.get('begin', 0)
        for key in ENDS:
            if schedule.get(key) == before:
                schedule[key] = after
            elif schedule.get(key) and schedule[key] == before - begin:
                # Counted from the beginning of the schedule.
                schedule[key] = after - begin


def follow_rate(cfg: Config, before: Any) -> None:
    """Keep the optimizer's rate and the peak of a one-cycle schedule equal after an override.

    If one of the two was overridden and the other still has the old value, it gets the
    new one. Only the schedule's has an effect.

    Args:
        cfg (Config): Changed in place.
        before: The optimizer's rate before the override, or None.
    """
    schedule = find_one_cycle(cfg)
    if schedule is None:
        return
    peak = schedule.get('eta_max')
    rate = rate_of_optimizer(cfg)
    if not is_number(rate) or not is_number(peak):
        return
    if rate != before and peak == before:
        schedule['eta_max'] = rate
    elif peak != before and rate == before:
        cfg.optim_wrapper.optimizer.lr = peak


def follow_size(cfg: Config, before: Any) -> None:
    """Give transforms and model the config's ``image_size`` where they had the old one.

    Args:
        cfg (Config): Changed in place.
        before: ``image_size`` before the override, or None if the config has none.
    """
    if before is None:
        return
    for name in cfg:
        if name.endswith(_HAVE_SIZES):
            _replace_size(cfg[name], before, cfg.image_size)


def _replace_size(node: Any, before: Any, after: Any) -> None:
    """Replace a size below a node, written as a number or as a pair of it."""
    if isinstance(node, (list, tuple)):
        for value in node:
            _replace_size(value, before, after)
    if not isinstance(node, dict):
        return
    for key in _SIZES:
        size = node.get(key)
        if size == before:
            node[key] = after
        elif size == [before, before]:
            node[key] = [after, after]
        elif size == (before, before):
            node[key] = (after, after)
    for value in node.values():
        _replace_size(value, before, after)
