"""Stop a training whose blocks are not built, do not run, or do not affect the loss.

A host may ignore the neck that its config gives it, or never call it, and then trains
without the block in silence.
"""

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from lm4ve.errors import UserError, listing
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.usage import ADVICE, NeckUsage, inspect_usage, is_compiled, watch_necks
from lm4ve.registry import HOOKS
from lm4ve.runner.compiling import TrainingForward
from lm4ve.runner.finite_loss import losses_of

#: Attributes of models for segmentation and detection, whose heads read a map.
_HEADS_OF_MAPS = ('decode_head', 'bbox_head', 'rpn_head')
#: Keys for Swin that mmpretrain's recipes of every transformer have.
_KEYS_FOR_SWIN = ('.absolute_pos_embed', '.relative_position_bias_table')


@HOOKS.register_module(name=['BlockInUseHook', 'NeckProgressHook'])
class NeckHook(Hook):  # type: ignore[misc]
    """Compare the model with its config, and each neck with what one iteration shows of it.

    It raises if a neck was not built, did not run, or has no part in the loss.
    Iterations whose loss is exactly zero, as a batch without truth gives it, are passed
    over. A model whose first step is compiled is not watched. Before each step it sets
    the progress of the necks that depend on it, such as a branch with a falling weight.
    Runners that our tools build have it.
    """

    # Before all other hooks of a step, and those that save.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        #: What the first iteration shows of each neck; empty once that is judged.
        self._watched: Sequence[NeckUsage] = ()
        self._following: list[LLMBlockNeck] = []

    def before_train(self, runner: Runner) -> None:
        """Compare the built model with its config, and watch its necks in the next iteration.

        Raises:
            UserError: A host did not build the neck of its config, or its neck does not
                fit its encoder or head.
        """
        model = runner.model
        necks = [m for m in model.modules() if isinstance(m, LLMBlockNeck)]
        _refuse_unbuilt_neck(runner.cfg, model, len(necks))
        for module in model.modules():
            if isinstance(getattr(module, 'neck', None), LLMBlockNeck):
                _check_neck_fits(module)
        _warn_of_unused_keys(runner.cfg, model)
        self._following = [neck for neck in necks if neck.follows_progress]
        if _runs_hooks_at_first(runner):
            self._watched = watch_necks(model)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set the training's progress in necks, from 0 in the first step to 1 in the last."""
        for neck in self._following:
            neck.set_progress(runner.iter / max(1, runner.max_iters - 1))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Check the necks after the first iteration whose loss is not exactly zero.

        Raises:
            UserError: See :func:`lm4ve.necks.usage.inspect_usage`.
        """
        if not self._watched:
            return
        losses = losses_of(outputs)
        is_zero = bool(losses) and not any(loss.any() for loss in losses.values())
        if is_zero:
            return
        watched = self._watched
        self._watched = ()
        inspect_usage(watched)


def _runs_hooks_at_first(runner: Runner) -> bool:
    """Return whether the first step of a training is not compiled."""
    model = runner.model
    if isinstance(model._compiled_call_impl, TrainingForward):
        return True
    # The FlexibleRunner replaces a method, which the model does not show.
    return not runner.cfg.get('compile') and not is_compiled(model)


def _host_of(model: nn.Module) -> Any:
    """Return the model within the wrapper of distributed training."""
    return getattr(model, 'module', model)


def _refuse_unbuilt_neck(cfg: Any, model: nn.Module, built: int) -> None:
    """Compare the number of necks in a config with those in its model.

    Raises:
        UserError: The model has fewer.
    """
    # The name in a scope ends so, and so does the class itself.
    named = repr(cfg.get('model')).count("LLMBlockNeck'")
    if named > built:
        raise UserError(
            f'model.neck of the config: {type(_host_of(model)).__name__} built {built} of {named} '
            f"type='LLMBlockNeck' and would train without the block.{ADVICE}"
        )


def _warn_of_unused_keys(cfg: Any, model: nn.Module) -> None:
    """Warn of keys of ``custom_keys`` that match no parameter.

    A part that the model can have but does not (``neck=None``) is no mistake, nor are keys
    that mmpretrain gives every transformer.
    """
    names = []
    for name, _ in model.named_parameters():
        names.append(f'.{name}')  # a key may begin with the dot before a name
    host = _host_of(model)
    unused = []
    for key in _custom_keys(cfg):
        part = key.partition('.')[0]
        is_used = key in _KEYS_FOR_SWIN or any(key in name for name in names)
        if not is_used and not hasattr(host, part):
            unused.append(key)
    if unused:
        text = 'optim_wrapper.paramwise_cfg.custom_keys: no parameter matches '
        print_log(text + listing(unused), logger='current', level=logging.WARNING)


def _custom_keys(cfg: Any) -> list[str]:
    """Return the keys by which a config gives parameters their own rates."""
    wrapper = cfg.get('optim_wrapper') or {}
    paramwise = wrapper.get('paramwise_cfg') or {}
    return list(paramwise.get('custom_keys') or ())


def _check_neck_fits(host: Any) -> None:
    """Check that a host's neck fits its head and its encoder.

    Args:
        host (nn.Module): With ``neck``, and perhaps ``backbone``.

    Raises:
        UserError: See :func:`_check_neck_fits_head`.
    """
    _check_neck_fits_head(host)
    _warn_of_averaged_class_tokens(host)


def _check_neck_fits_head(host: Any) -> None:
    """Check that a host for segmentation or detection gets a map from its neck.

    Args:
        host (nn.Module): With ``neck``. Such hosts are recognized by the name of their
            head.

    Raises:
        UserError: The neck gives a vector.
    """
    neck = host.neck
    reads_map = any(hasattr(host, name) for name in _HEADS_OF_MAPS)
    if reads_map and neck.out_type != 'raw':
        raise UserError(
            f"model.neck.out_type='{neck.out_type}' gives a vector, but {type(host).__name__} "
            "reads a map. Fix: model.neck.out_type='raw'."
        )


def _warn_of_averaged_class_tokens(host: Any) -> None:
    """Warn if a neck expects other class and register tokens than its encoder returns.

    They are the encoder's first ``num_extra_tokens`` tokens, and no patches. A neck that
    averages tokens, and has another ``num_extra_tokens``, averages over some of them,
    too, which gets a warning.

    Args:
        host (nn.Module): With ``neck``, and perhaps ``backbone``.
    """
    neck = host.neck
    encoder = getattr(host, 'backbone', None)
    extra = getattr(encoder, 'num_extra_tokens', 0)
    if not extra or getattr(encoder, 'out_type', 'raw') != 'raw':
        return
    if not neck.averages_tokens or neck.num_extra_tokens == extra:
        return
    text = (
        f"model.neck.out_type='{neck.out_type}' pools the first {extra} tokens of "
        f'{type(encoder).__name__}, which are no patches. '
        f'Fix: model.neck.num_extra_tokens={extra}, if that is not meant.'
    )
    print_log(text, logger='current', level=logging.WARNING)
