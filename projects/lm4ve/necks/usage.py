"""Whether a model uses its blocks: observed once, in one training iteration.

A container whose ``forward`` is never called, an output that the encoder drops, an
adapter that gets no gradient: each of them trains without an error, and the block has
no effect. Hooks that stay for one iteration see it. ``lm4ve.BlockInUseHook`` does so in
a runner; :func:`check` does so anywhere.
"""

import copy
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from lm4ve import errors
from lm4ve.errors import UserError
from lm4ve.necks.neck import LLMBlockNeck

ADVICE = (
    ' Fix: a host that calls its neck, or after= a submodule that runs and index= an '
    'entry of its output that is used (lm4ve.wrap, LLMBlockInsert); guard=False of the '
    'neck where the block rests in some steps.'
)
#: Operations that move, copy or average tokens without changing what a norm has made.
_NEUTRAL = {
    'AdaptiveAvgPool2D',
    'AdaptiveAvgPool3D',
    'Alias',
    'AsStrided',
    'Cat',
    'Clone',
    'Mean',
    'MkldnnAdaptiveAvgPool2D',
    'Permute',
    'ReshapeAlias',
    'Select',
    'Slice',
    'Split',
    'Squeeze',
    'T',
    'ToCopy',
    'Transpose',
    'Unbind',
    'UnsafeView',
    'Unsqueeze',
    'View',
}
_NORMS = {'FusedRmsNorm', 'NativeGroupNorm', 'NativeLayerNorm', 'RmsNorm'}
#: How many of these operations are followed back from a neck to a norm.
_DEPTH = 16


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
        made_by: The operation that made the neck's features, their ``grad_fn``.
        hooks (list): What :meth:`watch` has added.
    """

    def __init__(self, neck: LLMBlockNeck, name: str) -> None:
        self.neck = neck
        self.name = name
        self.ran = False
        self.differentiable = False
        self.reached = False
        self.trains = False
        self.unreached: set[str] = set()
        self.made_by: Any = None
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
        self.hooks.append(
            self.neck.register_forward_pre_hook(self._before, with_kwargs=True)
        )
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

    def _before(
        self, neck: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Note the operation that made the features, before the neck's first run."""
        if self.ran or not torch.is_grad_enabled():
            return
        if args:
            feats = args[0]
        else:
            feats = next(iter(kwargs.values()))
        self.made_by = self.neck.pick(feats).grad_fn

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
        if not isinstance(module, LLMBlockNeck) or not module.guard:
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
        if usage.neck.norm is not None and comes_from_norm(usage.made_by):
            text = (
                f'The input of {usage.name} is already normalized, and the neck has a '
                "norm too. Fix: turn the encoder's final norm off by its fields "
                '(docs/guides/backbones.md), such as model.backbone.final_norm=False, or set '
                f'{usage.name}.norm_cfg=None.'
            )
            print_log(text, logger='current', level=logging.WARNING)
        defect = usage.defect()
        if defect:
            raise UserError(defect + ADVICE)


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
    necks = [m for m in model.modules() if isinstance(m, LLMBlockNeck)]
    errors.check('necks (LLMBlockNeck) of the model', len(necks), least=1)
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


def comes_from_norm(node: Any) -> bool:
    """Return whether features come from a norm without another computation after it.

    The block's place is before an encoder's final norm, which the neck then applies.
    Names of that norm differ in every encoder; the operations between it and the neck
    do not.

    Args:
        node: The operation that made the features, their ``grad_fn``.
    """
    for _ in range(_DEPTH):
        if node is None:
            return False
        name = type(node).__name__.partition('Backward')[0].lstrip('_')
        if name in _NORMS:
            return True
        if name not in _NEUTRAL:
            return False
        node = _first_input(node)
    return False


def _first_input(node: Any) -> Any:
    """Return the operation that made the first differentiable input of an operation.

    None if it has no such input. Both are nodes of autograd (``grad_fn``).
    """
    for previous, _ in node.next_functions:
        if previous is not None:
            return previous
    return None
