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
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    ' Fix: a host that calls its neck, or after= a submodule that runs and index= an entry of its '
    'output that is used (lm4ve.wrap, LLMBlockInsert); guard=False of the neck where the block '
    'rests in some steps.'
)
#: Operations that move, copy or average tokens without changing what a norm has made.
_NEUTRAL = (
    *(
        'View',
        'UnsafeView',
        'ReshapeAlias',
        'Permute',
        'Transpose',
        'T',
        'Clone',
        'Slice',
    ),
    *(
        'Select',
        'Squeeze',
        'Unsqueeze',
        'Mean',
        'Alias',
        'ToCopy',
        'Cat',
        'Split',
        'Unbind',
    ),
    *('AdaptiveAvgPool2D', 'AdaptiveAvgPool3D', 'MkldnnAdaptiveAvgPool2D', 'AsStrided'),
)
_NORMS = ('NativeLayerNorm', 'NativeGroupNorm', 'FusedRmsNorm', 'RmsNorm')


class NeckUsage:
    """Observes one neck while its hooks are there.

    Args:
        neck (LLMBlockNeck): The neck.
        name (str): Its name in the model.
        sharded (bool): Its parameters are FSDP1's, which get no gradient of their own.
    """

    def __init__(self, neck: LLMBlockNeck, name: str, sharded: bool) -> None:
        self.neck, self.name = neck, name
        self.ran = self.differentiable = self.reached = False
        self.made_by: Any = None  # the operation that made the neck's features
        trained = {
            n: p
            for n, p in neck.named_parameters()
            if n.startswith('mapper_')
            and p.requires_grad
            and type(p) in (nn.Parameter, DTensor)
        }
        self.unreached = set() if sharded else set(trained)
        self.trains = bool(trained)
        self.hooks: list[Any] = [
            neck.register_forward_pre_hook(self._before, with_kwargs=True),
            neck.register_forward_hook(self._after),
        ]
        for n, p in trained.items():
            # FSDP2 computes with other tensors than its parameters, and hands these a
            # gradient.
            split = isinstance(p, DTensor)
            register = (
                p.register_post_accumulate_grad_hook if split else p.register_hook
            )
            self.hooks.append(register(lambda _, n=n: self.unreached.discard(n)))

    def _before(
        self, neck: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if not self.ran and torch.is_grad_enabled():
            self.made_by = self.neck.pick(
                args[0] if args else next(iter(kwargs.values()))
            ).grad_fn

    def _after(self, neck: nn.Module, args: Any, out: Any) -> None:
        self.ran = True
        if isinstance(out, tuple) and isinstance(
            out[-1], dict
        ):  # mmaction2's (x, losses)
            out = out[0]
        if isinstance(out, tuple):
            out = out[self.neck.index if self.neck.keep_others else 0]
        if torch.is_grad_enabled() and out.requires_grad:
            self.differentiable = True
            # By a gradient, also one of zeros.
            out.register_hook(lambda _: setattr(self, 'reached', True))

    def defect(self) -> str:
        """Return what is wrong after an iteration, or nothing."""
        if not self.ran:
            return f'{self.name} was built and did not run: nothing calls it.'
        if self.trains and not self.differentiable:
            return f'{self.name} ran without gradients (torch.no_grad(), a reversible layer).'
        if self.differentiable and not self.reached:
            return f'The output of {self.name} does not reach the loss: encoder or head drops it.'
        if self.reached and self.unreached:
            return f'The mapper got no gradient: {self.name}.{min(self.unreached)}.'
        return ''


def is_compiled(model: nn.Module) -> bool:
    """Whether a part of a model runs in compiled code, which leaves no trace in Python."""
    modules = model.modules()
    return any(
        m._compiled_call_impl or type(m).__name__ == 'OptimizedModule' for m in modules
    )


def watch_necks(model: nn.Module) -> list[NeckUsage]:
    """Add hooks for one training iteration to the necks of a model that have ``guard``.

    Args:
        model (nn.Module): The model, also within a distributed wrapper, and not
            compiled.
    """
    modules = [*model.modules()]
    sharded = any(isinstance(m, FullyShardedDataParallel) for m in modules)
    return [
        NeckUsage(m, f'model.{n.removeprefix("module.")}', sharded)
        for n, m in model.named_modules()
        # peft keeps the original of a module beside the copy that it trains.
        if isinstance(m, LLMBlockNeck)
        and m.guard
        and 'original_module' not in n.split('.')
    ]


def inspect_usage(necks: Sequence[NeckUsage]) -> None:
    """Remove the hooks of :func:`watch_necks` and judge the iteration.

    Raises:
        UserError: A neck did not run, has no part in the loss, or its mapper got no
            gradient.
    """
    for hook in itertools.chain(*(usage.hooks for usage in necks)):
        hook.remove()
    for usage in necks:
        if usage.neck.norm is not None and comes_from_norm(usage.made_by):
            print_log(
                f'The input of {usage.name} is already normalized, and the neck has a norm too. '
                "Fix: turn the encoder's final norm off (model.backbone.final_norm=False; "
                'docs/guides/backbones.md), or set norm_cfg=None.',
                logger='current',
                level=logging.WARNING,
            )
        if defect := usage.defect():
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
    necks = sum(isinstance(m, LLMBlockNeck) for m in model.modules())
    errors.check('necks (LLMBlockNeck) of the model', necks, least=1)
    unchanged: AbstractContextManager[None]
    if any(isinstance(m, FSDPModule) for m in model.modules()):
        unchanged = _restored(model)
    else:
        model = copy.deepcopy(model)
        unchanged = nullcontext()
    devices = {t.device for t in itertools.chain(model.parameters(), model.buffers())}
    random_state = torch.random.fork_rng([d for d in devices if d.type == 'cuda'])
    as_written: AbstractContextManager[None] = nullcontext()
    if is_compiled(model):  # where hooks see nothing
        as_written = torch.compiler.set_stance('force_eager')
    with unchanged, random_state, as_written, torch.enable_grad():
        watched = watch_necks(model)
        for training in (
            True,
            False,
        ):  # a layer may rest in a training step (LayerDrop)
            model.train(training)
            if isinstance(model, BaseModel):
                losses = model._run_forward(
                    model.data_preprocessor(batch, True), mode='loss'
                )
                out = model.parse_losses(losses)[0]
            elif isinstance(batch, Mapping):
                out = model(**batch)
            else:
                out = (
                    model(*batch) if isinstance(batch, (tuple, list)) else model(batch)
                )
            tensors = [
                x for x in tree_leaves(out) if isinstance(x, Tensor) and x.requires_grad
            ]
            if tensors:
                torch.stack([x.sum().float() for x in tensors]).sum().backward()
            if all(usage.ran for usage in watched):
                break
        inspect_usage(watched)


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Set a model's gradients, buffers and modes back at the end of this context."""
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
    """Whether a norm made features, and no other operation came after it.

    The block's place is before an encoder's final norm, which the neck then applies.
    Names of that norm differ in every encoder; the operations between it and the neck
    do not.

    Args:
        node: The operation that made the features, their ``grad_fn``.
    """
    for _ in range(16):
        name = type(node).__name__.partition('Backward')[0].lstrip('_')
        if node is None or name not in _NEUTRAL:
            return name in _NORMS
        node = next((n for n, _ in node.next_functions if n is not None), None)
    return False
