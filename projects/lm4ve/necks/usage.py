"""Whether a model uses its blocks: what only watching a training step shows.

A container whose ``forward`` is never called, an output that the encoder drops, an
adapter that gets no gradient, an encoder under ``torch.no_grad()``, a host that does not
build the neck of its config: each of them trains without an error, and the block has no
effect. This is seen in three ways:

- :class:`NeckHook` (``lm4ve.BlockInUseHook``) watches the first iteration of a runner,
  and compares the model with its config before;
- :func:`check` (``lm4ve.check``) watches an iteration of any model when it is called;
- :func:`expect_gradient` is called by a neck that trains without gradients, and sees the
  first step of any optimizer. Users of ``lm4ve.wrap`` have no other guard.

A neck imports this file only then: its hooks need those of MMEngine, which take long to
import.
"""

import copy
import itertools
import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from lm4ve import errors
from lm4ve.errors import UserError, listing
from lm4ve.necks.interface import NeckInterface
from lm4ve.registry import HOOKS

if TYPE_CHECKING:
    from mmengine.runner import Runner

ADVICE = (
    ' Fix: a host that calls its neck, or after= a submodule that runs and index= an '
    'entry of its output that is used (lm4ve.wrap, LLMBlockInsert); guard=False of the '
    'neck where the block rests in some steps.'
)
#: Attributes of models for segmentation and detection, whose heads read a map.
_HEADS_OF_MAPS = ('decode_head', 'bbox_head', 'rpn_head')
#: Keys for Swin that mmpretrain's recipes of every transformer have.
_KEYS_FOR_SWIN = ('.absolute_pos_embed', '.relative_position_bias_table')


# ------------------------------------------------------------------- one iteration
class NeckUsage:
    """What one iteration shows of a neck.

    Args:
        neck (LLMBlockNeck): The neck.
        name (str): Its name in the model.

    Attributes:
        ran (bool): Whether it ran.
        differentiable (bool): Whether its output has gradients.
        reached (bool): Whether its output got a gradient.
        trains (bool): Whether parameters of its mappers train.
        unreached (set[str]): Names of those that got no gradient.
        hooks (list): What :meth:`watch` has added.
    """

    def __init__(self, neck: Any, name: str) -> None:
        self.neck = neck
        self.name = name
        self.ran = False
        self.differentiable = False
        self.reached = False
        self.trains = False
        self.unreached: set[str] = set()
        self.hooks: list[Any] = []

    def watch(self, is_sharded: bool) -> None:
        """Add the hooks.

        Args:
            is_sharded (bool): The parameters are FSDP1's, which get no gradient of
                their own.
        """
        trained = self._trained_mappers()
        self.trains = bool(trained)
        if not is_sharded:
            self.unreached = set(trained)
        self.hooks.append(self.neck.register_forward_hook(self._after))
        for name, parameter in trained.items():
            self.hooks.append(self._watch_gradient(name, parameter))

    def _trained_mappers(self) -> dict[str, Any]:
        """Return the neck's parameters that should get a gradient in a training step.

        Those are the parameters of its mappers, as far as they train.

        Returns:
            dict[str, Parameter | DTensor]: Parameters by their names in the neck.
        """
        trained = {}
        for name, parameter in self.neck.named_parameters():
            # Of FSDP2's parameters the type is DTensor. FSDP1 has flat parameters of a
            # class of its own, which get no gradient of a single mapper.
            has_own_gradient = type(parameter) in (nn.Parameter, DTensor)
            is_of_mapper = name.startswith('mapper_')
            if is_of_mapper and parameter.requires_grad and has_own_gradient:
                trained[name] = parameter
        return trained

    def _watch_gradient(self, name: str, parameter: Any) -> Any:
        """Add a hook that takes a parameter off the list ``unreached`` at its gradient.

        Args:
            name (str): The parameter's name in the neck.
            parameter (Parameter | DTensor): The parameter.

        Returns:
            RemovableHandle: The hook, to be removed.
        """
        register = parameter.register_hook
        if isinstance(parameter, DTensor):
            # FSDP2 computes with other tensors than its parameters, and hands these a
            # gradient.
            register = parameter.register_post_accumulate_grad_hook
        return register(lambda _: self.unreached.discard(name))

    def _after(self, neck: nn.Module, args: Any, output: Any) -> None:
        """Note that the neck has run, and watch the gradient of its output."""
        self.ran = True
        out = self.neck.pick_output(output)
        if torch.is_grad_enabled() and out.requires_grad:
            self.differentiable = True
            out.register_hook(self._note_gradient)

    def _note_gradient(self, gradient: Tensor) -> None:
        """Note that the output got a gradient, if only of zeros."""
        self.reached = True

    def defect(self) -> str:
        """Describe what an iteration has shown to be wrong with the use of the neck.

        Returns:
            str: A sentence; '' if nothing is wrong.
        """
        if not self.ran:
            return f'{self.name} was built and did not run: nothing calls it.'
        if self.trains and not self.differentiable:
            return (
                f'{self.name} ran without gradients (torch.no_grad(), a reversible '
                'layer).'
            )
        if self.differentiable and not self.reached:
            return (
                f'The output of {self.name} does not reach the loss: encoder or head '
                'drops it.'
            )
        if self.reached and self.unreached:
            parameter = f'{self.name}.{min(self.unreached)}'
            return f'The mapper got no gradient: {parameter}.'
        return ''


def necks_of(model: nn.Module) -> list[Any]:
    """Return the necks of a model, each an :class:`lm4ve.necks.LLMBlockNeck`."""
    return [module for module in model.modules() if isinstance(module, NeckInterface)]


def is_compiled(model: nn.Module) -> bool:
    """Return whether a part of a model runs in compiled code, in which hooks do not run."""
    for module in model.modules():
        if module._compiled_call_impl or type(module).__name__ == 'OptimizedModule':
            return True
    return False


def watch_necks(model: nn.Module) -> list[NeckUsage]:
    """Add hooks for one training iteration to the necks of a model that have ``guard``.

    Args:
        model (nn.Module): The model, also within a distributed wrapper, and not
            compiled.
    """
    is_sharded = any(isinstance(m, FullyShardedDataParallel) for m in model.modules())
    watched = []
    for name, module in model.named_modules():
        if not isinstance(module, NeckInterface) or not module.guard:
            continue
        # peft keeps the original of a module beside the copy that it trains.
        if 'original_module' in name.split('.'):
            continue
        usage = NeckUsage(module, f'model.{name.removeprefix("module.")}')
        usage.watch(is_sharded)
        watched.append(usage)
    return watched


def inspect_usage(necks: Sequence[NeckUsage]) -> None:
    """Remove the hooks of :func:`watch_necks` and judge the iteration.

    Raises:
        UserError: A neck did not run, has no part in the loss, or its mapper got no
            gradient.
    """
    for usage in necks:
        for hook in usage.hooks:
            hook.remove()
    for usage in necks:
        defect = usage.defect()
        if defect:
            raise UserError(defect + ADVICE)


# ---------------------------------------------------------------- any model, on call
def check(model: nn.Module, batch: Any) -> None:
    """Check by one forward and backward pass that every block has a part in a model's output.

    A copy of the model does both, so that the model and the random numbers stay as they
    are. A model that FSDP2 has split cannot be copied: it runs itself, and gradients,
    buffers and mode are set back. There every process has to call this function.

    Args:
        model (nn.Module): Any model with necks; a runner's model too.
        batch: A tensor, or a tuple or dict of arguments; for MMEngine's models a batch
            of the dataloader, of which the losses are computed.

    Raises:
        UserError: There is no neck, a block does not run or has no part in the output,
            or its mapper gets no gradient.
    """
    errors.check('necks (LLMBlockNeck) of the model', len(necks_of(model)), least=1)
    with ExitStack() as stack:
        if any(isinstance(m, FSDPModule) for m in model.modules()):
            stack.enter_context(_restored(model))
        else:
            model = copy.deepcopy(model)
        stack.enter_context(torch.random.fork_rng(_cuda_devices(model)))
        if is_compiled(model):  # where hooks see nothing
            stack.enter_context(torch.compiler.set_stance('force_eager'))
        stack.enter_context(torch.enable_grad())
        watched = watch_necks(model)
        _run(model, batch, training=True)
        if not all(usage.ran for usage in watched):
            # A layer may rest in a training step (LayerDrop).
            _run(model, batch, training=False)
        inspect_usage(watched)


def _cuda_devices(model: nn.Module) -> list[torch.device]:
    """Return the GPUs that a model is on, whose random numbers it may draw."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    devices = {tensor.device for tensor in tensors}
    return [device for device in devices if device.type == 'cuda']


def _run(model: nn.Module, batch: Any, training: bool) -> None:
    """Run a model forward and backward, in training or evaluation mode."""
    model.train(training)
    outputs = []
    for value in tree_leaves(_forward(model, batch)):
        if isinstance(value, Tensor) and value.requires_grad:
            outputs.append(value.sum().float())
    if outputs:
        torch.stack(outputs).sum().backward()


def _forward(model: Any, batch: Any) -> Any:
    """Run a model on a batch.

    Args:
        model (nn.Module): Any model.
        batch: See :func:`check`.

    Returns:
        The model's output; for a model of MMEngine the sum of its losses.
    """
    if isinstance(model, BaseModel):
        data = model.data_preprocessor(batch, True)
        losses = model._run_forward(data, mode='loss')
        return model.parse_losses(losses)[0]
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Restore a model's gradients, buffers and modes at the end of this context."""
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(b, b.clone()) for b in model.buffers()]
    modes = [(m, m.training) for m in model.modules()]
    model.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for buffer, value in buffers:
            buffer.data.copy_(value)
        for module, training in modes:
            module.training = training


# ------------------------------------------------- any optimizer, without gradients
# A frozen encoder is often run under ``torch.no_grad()``, and a reversible encoder
# computes its gradients by calling parts of its layers again, past every hook. In both
# the mappers get no gradient, and the optimizer skips them without a word. The forward
# pass alone does not show it: gradient checkpointing runs it under ``no_grad`` too, and
# so does a look at the output's shape. A step of an optimizer that has the mappers and
# finds no gradient does.

#: Necks that wait for a step.
_waiting: 'weakref.WeakSet[nn.Module]' = weakref.WeakSet()
# The hook of all optimizers, once it is needed. It stays: torch walks through its hooks
# while it calls them, so that none may remove itself.
_hooks: list[RemovableHandle] = []


def expect_gradient(neck: nn.Module) -> None:
    """Let the first optimizer step that trains a neck's mappers raise if they got no gradient.

    Args:
        neck (nn.Module): A neck in training mode that runs under ``torch.no_grad()``.
    """
    if neck in _waiting or not _trained_mappers(neck):
        return
    _waiting.add(neck)
    if not _hooks:
        _hooks.append(register_optimizer_step_pre_hook(_inspect))


def _inspect(optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> None:
    """Check that the mappers which an optimizer is about to train have gradients.

    torch calls it before each step of any optimizer. A neck is checked once.

    Args:
        optimizer (Optimizer): The optimizer.
        args (tuple): The arguments of its step; the second may be a closure.
        kwargs (dict): The step's arguments that are given by name.

    Raises:
        UserError: A neck ran under ``torch.no_grad()``, and none of its mappers'
            parameters has a gradient.
    """
    if not _waiting:
        return
    closure = kwargs.get('closure')
    if len(args) > 1:
        closure = args[1]
    if closure is not None:  # it computes the gradients within the step
        return
    for neck in list(_waiting):
        mappers = _trained_mappers(neck)
        if not _has_any(optimizer, mappers):
            continue
        _waiting.discard(neck)
        if all(parameter.grad is None for parameter in mappers):
            raise UserError(
                'An LLMBlockNeck ran under torch.no_grad() in training, and its '
                'mappers got no gradient. Fix: freeze the encoder by '
                'requires_grad_(False) and run it with gradients; or a place that is '
                'no part of a reversible layer; or guard=False.'
            )


def _trained_mappers(neck: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a neck's mappers that train in this process."""
    trained = []
    for name, parameter in neck.named_parameters():
        # With FSDP1, a parameter of another process's shard is empty here, and gets no
        # gradient.
        is_here = parameter.numel() > 0
        if name.startswith('mapper_') and parameter.requires_grad and is_here:
            trained.append(parameter)
    return trained


def _has_any(optimizer: Optimizer, parameters: list[nn.Parameter]) -> bool:
    """Return whether an optimizer trains at least one of some parameters."""
    ids = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in group['params']:
            if id(parameter) in ids:
                return True
    return False


# ------------------------------------------------------------------- MMEngine's runners
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
        #: Necks that depend on how far training has come.
        self._following: list[Any] = []

    def before_train(self, runner: 'Runner') -> None:
        """Compare the built model with its config, and watch its necks in the next iteration.

        Raises:
            UserError: A host did not build the neck of its config, or its neck does not
                fit its encoder or head.
        """
        model = runner.model
        necks = necks_of(model)
        _refuse_unbuilt_neck(runner.cfg, model, len(necks))
        for module in model.modules():
            if isinstance(getattr(module, 'neck', None), NeckInterface):
                _check_neck_fits(module)
        _warn_of_unused_keys(runner.cfg, model)
        self._following = [neck for neck in necks if neck.follows_progress]
        if _runs_hooks_at_first(runner):
            self._watched = watch_necks(model)

    def before_train_iter(
        self, runner: 'Runner', batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set the training's progress in necks, from 0 in the first step to 1 in the last."""
        for neck in self._following:
            neck.set_progress(runner.iter / max(1, runner.max_iters - 1))

    def after_train_iter(
        self,
        runner: 'Runner',
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Check the necks after the first iteration whose loss is not exactly zero.

        Raises:
            UserError: See :func:`inspect_usage`.
        """
        if not self._watched:
            return
        if _has_no_loss(outputs):
            return
        watched = self._watched
        self._watched = ()
        inspect_usage(watched)


def _has_no_loss(outputs: Any) -> bool:
    """Return whether all losses of an iteration are exactly zero."""
    losses = [value for name, value in (outputs or {}).items() if 'loss' in name]
    return bool(losses) and not any(torch.as_tensor(loss).any() for loss in losses)


def _runs_hooks_at_first(runner: 'Runner') -> bool:
    """Return whether the first step of a training is not compiled."""
    model = runner.model
    if getattr(model._compiled_call_impl, 'first_step_is_plain', False):
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
