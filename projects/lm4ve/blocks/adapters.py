"""LoRA inside a block and on its mappers: ``peft``'s own layers on our frozen ones.

A frozen projection is a :class:`lm4ve.blocks.Frozen`, which hides its tensors from
optimizers, initializers and checkpoints, and which ``peft`` has no layer for.
:class:`LoRALinear` is ``peft``'s layer around one, also for ``peft.get_peft_model``
(``blocks/peft_configs.py``). A checkpoint holds A and B alone.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora as peft_lora
from torch import nn

from lm4ve.blocks.frozen import Frozen, unwrap
from lm4ve.blocks.seeding import kept_cpu_generator
from lm4ve.errors import UserError, build_from, check, listing


@dataclass(frozen=True)
class LoRA:
    """The fields of ``lora`` (LoRA: arXiv 2106.09685).

    Attributes:
        targets (Sequence[str] | str): Names of linear layers, or of what holds them
            ('mlp'); 'all-linear' for all of them.
        r (int): The rank.
        alpha (float, optional): The update ``B A x`` is multiplied by ``alpha / r``.
            None: r.
        dropout (float): Probability of dropout before A, in training.
        bias (str): 'lora_only' trains the biases of the targets too, 'none' does not.
            Biases within a frozen block never train.
    """

    targets: Sequence[str] | str
    r: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    bias: str = 'none'

    def __post_init__(self) -> None:
        check('lora.r', self.r, kind=int, least=1)
        check('lora.alpha', self.alpha, kind=(int, float, type(None)), above=0)
        check('lora.dropout', self.dropout, kind=(int, float), least=0, most=0.99)
        check('lora.bias', self.bias, choices=('none', 'lora_only'))
        check('lora.targets', self.targets, kind=(str, list, tuple))

    @property
    def resolved_alpha(self) -> float:
        """``alpha``, or the rank where it is None."""
        if self.alpha is None:
            return self.r
        return self.alpha


class _Linear(peft_lora.Linear):
    """Hides the name 'Linear' from initializers, which match a class and its direct base.

    Through ``weight`` they would overwrite the frozen layer.
    """


class LoRALinear(_Linear):
    """``peft``'s LoRA layer around a linear layer that may be frozen.

    Attributes:
        seed (int): Seed of A's initial values; B is zero at first.
        unmerged_base (Frozen | None): A frozen layer as it was before updates were
            merged into it; None while none are.
    """

    seed = 0
    unmerged_base: Frozen | None = None

    lora_A: Any
    lora_B: Any

    def get_base_layer(self) -> Any:
        """Return the linear layer itself."""
        return unwrap(super().get_base_layer())

    @property
    def bias(self) -> Any:
        """The base layer's bias, unless it is frozen: ``peft`` trains what this returns."""
        if isinstance(self.base_layer, Frozen):
            return None
        return self.get_base_layer().bias

    def merge(
        self, safe_merge: bool = True, adapter_names: list[str] | None = None
    ) -> None:
        """Add the update to the weight; never in place, since copies share frozen values.

        A frozen layer is merged into a copy, and kept until :meth:`unmerge`.
        """
        if isinstance(self.base_layer, Frozen):
            if not self.merged:
                # Past nn.Module, in whose tree there is the merged copy alone.
                self.__dict__['unmerged_base'] = self.base_layer
            # gemma4's values may share theirs with its keys.
            self.base_layer = copy.deepcopy(self.base_layer)
        super().merge(True, adapter_names)

    def unmerge(self) -> None:
        """Subtract the update from the weight, or give a frozen layer back as it was.

        The difference would not be the frozen weight again: the sum was rounded.
        """
        # Never in place, since copies of a merged layer share its values.
        for tensor in self.get_base_layer().parameters():
            tensor.data = tensor.data.clone()
        super().unmerge()
        if self.unmerged_base is not None:
            merged = self.get_base_layer().weight
            base = copy.deepcopy(self.unmerged_base)
            # The model may have been moved or cast since.
            self.base_layer = base.to(merged.device, merged.dtype)
            self.__dict__['unmerged_base'] = None

    def init_weights(self) -> None:
        """Initialize A and B as ``peft`` does; hosts have initialized them as any Linear."""
        generator = torch.Generator().manual_seed(self.seed)
        for name in self.lora_A:
            a = self.lora_A[name].weight
            b = self.lora_B[name].weight
            drawn = torch.empty(a.shape, dtype=torch.float32)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            with torch.no_grad():
                a.copy_(drawn)
                b.zero_()


def add_lora(
    root: nn.Module,
    fields: dict[str, Any],
    field: str,
    targets: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Put LoRA on linear layers below a module, and freeze its other parameters.

    Args:
        root (nn.Module): It is changed in place.
        fields (dict): Fields of :class:`LoRA`.
        field (str): What the user calls them, for messages.
        targets (Sequence[str]): The default of their targets.
        seed (int): Seed of the initial values.

    Returns:
        dict: What a checkpoint records.

    Raises:
        UserError: A field has no such value, or a target matches nothing.
    """
    options = build_from(LoRA, fields, field, targets=targets)
    chosen = _match_targets(root, options.targets, f'{field}.targets')
    _inject(root, _peft_config(options, chosen))
    for i, layer in enumerate(_lora_layers(root)):
        # Updates are lost in 16-bit weights.
        layer.lora_A.float()
        layer.lora_B.float()
        layer.seed = seed + i
        layer.init_weights()
    return dict(r=options.r, alpha=options.resolved_alpha, targets=chosen)


def _match_targets(
    root: nn.Module, targets: Sequence[str] | str, field: str
) -> list[str]:
    """Return the names of the linear layers that the targets name, sorted.

    Raises:
        UserError: A target matches nothing, or there is none.
    """
    linears = []
    for name, module in root.named_modules():
        if isinstance(unwrap(module), nn.Linear):
            linears.append(name)
    if not linears:
        raise UserError(
            f'{field}: adapters reach no linear layer of this family, whose layers hold tensors '
            "beside these. Fix: trainable='none' or 'all', or another family."
        )
    known = listing(linears, 12)
    if isinstance(targets, str):
        targets = [targets]
    chosen: set[str] = set()
    for target in targets:
        matches = [name for name in linears if _matches(target, name)]
        if not matches:
            raise UserError(
                f'{field}={target!r} matches no linear layer. Fix: name some of '
                f'{known}, or all-linear.'
            )
        chosen.update(matches)
    if not chosen:
        raise UserError(f'{field} is empty. Fix: name some of {known}.')
    return sorted(chosen)


def _matches(target: str, name: str) -> bool:
    """Return whether a target selects a linear layer.

    It does if it is the layer's name, one or several whole parts of the name, or
    'all-linear'.

    Args:
        target (str): For example 'mlp' or 'mlp.fc1'.
        name (str): The layer's name, for example 'layers.0.mlp.fc1'.
    """
    if target == 'all-linear':
        return True
    return f'.{target}.' in f'.{name}.'


def _peft_config(options: LoRA, chosen: list[str]) -> LoraConfig:
    """Write the options of LoRA as a config of ``peft``.

    Args:
        options (LoRA): Rank, alpha, dropout and bias.
        chosen (list[str]): The names of the linear layers that get an adapter.
    """
    # peft's annotations are narrower than what it takes.
    alpha: Any = options.resolved_alpha
    bias: Any = options.bias
    config = LoraConfig(
        r=options.r,
        lora_alpha=alpha,
        lora_dropout=options.dropout,
        bias=bias,
        target_modules=chosen,
    )
    config._register_custom_module({nn.Linear: LoRALinear})
    return config


def _inject(root: nn.Module, config: LoraConfig) -> None:
    """Let ``peft`` replace the linear layers of a module by layers with an adapter.

    torch's CPU generator is left as it is.

    Args:
        root (nn.Module): It is changed in place.
        config (LoraConfig): It names the layers.
    """
    holder = nn.Module()
    holder.root = root
    holder.device = nn.Parameter(torch.empty(0))  # peft looks for a parameter
    with kept_cpu_generator():  # which the layers' constructors draw from
        inject_adapter_in_model(config, holder)


def _lora_layers(root: nn.Module) -> list[LoRALinear]:
    """Return the layers with adapters below a module."""
    return [m for m in root.modules() if isinstance(m, LoRALinear)]


def merge_adapters(model: nn.Module) -> None:
    """Merge every active LoRA layer below a module into its base layer, which replaces it."""
    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, peft_lora.Linear) and not layer.disable_adapters:
                layer.merge(safe_merge=True)
                setattr(owner, name, layer.base_layer)
