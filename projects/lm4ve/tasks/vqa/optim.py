"""METER's learning rates: one base rate, faster heads, a faster fusion, and faster mappers.

METER has three speeds, each with and without weight decay (its released code); the
paper of the blocks trains their mappers at ten times the image encoder's rate
(arXiv 2310.12973, section C.5).
"""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from lm4ve.errors import check
from lm4ve.registry import OPTIM_WRAPPER_CONSTRUCTORS

#: How fast a group trains, relative to the base rate: the paper's VQAv2.
MULTIPLIERS = {'base': 1.0, 'head': 50.0, 'cross_modal': 5.0, 'neck': 10.0}
#: The group of a module, the first that fits. METER finds its heads and its fusion by
#: their names too, and leaves rank_output and token types at the base rate.
GROUPS = {
    'head.rank_output': 'base',
    'head': 'head',
    'neck': 'neck',
    'image_transform': 'cross_modal',
    'text_transform': 'cross_modal',
    'image_pooler': 'cross_modal',
    'text_pooler': 'cross_modal',
    'fusion': 'cross_modal',
}
#: METER does not decay what has these in its name. CLIP's norms and the one of the
#: answer head are called otherwise, and do decay.
_NORMS = {'LayerNorm', 'norm', 'norm1', 'norm2'}
#: What sharding and compiling put into names.
_WRAPPERS = (
    '_fsdp_wrapped_module',
    '_orig_mod',
    '_checkpoint_wrapped_module',
    'module',
)


def group_of(name: str) -> tuple[str, bool]:
    """Return the group of a parameter and whether it decays.

    Args:
        name (str): Its name in a :class:`METER`.
    """
    parts = [part for part in name.split('.') if part not in _WRAPPERS]
    is_bias = 'bias' in parts[-1]
    is_of_norm = not _NORMS.isdisjoint(parts)
    decays = not is_bias and not is_of_norm
    name = '.'.join(parts)
    for module, group in GROUPS.items():
        if name.startswith(f'{module}.'):
            return group, decays
    return 'base', decays


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class METEROptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Group a :class:`METER`'s parameters as its recipe does.

    ``paramwise_cfg`` holds multipliers of the optimizer's ``lr``: ``head`` (50 for
    VQAv2, 5 for retrieval), ``cross_modal`` (5: transforms, co-attention and poolers),
    ``neck`` (10: mappers, and the block where it trains) and ``base`` (1: encoders,
    token types and ``rank_output``). Biases do not decay, nor do norms, but for CLIP's
    and the answer head's.

    Raises:
        UserError: ``paramwise_cfg`` has another field.
    """

    paramwise_cfg: dict[str, Any]

    def _validate_cfg(self) -> None:
        for key, value in self.paramwise_cfg.items():
            check('a field of optim_wrapper.paramwise_cfg', key, choices=MULTIPLIERS)
            check(
                f'optim_wrapper.paramwise_cfg.{key}', value, kind=(int, float), least=0
            )
        self.paramwise_cfg = MULTIPLIERS | self.paramwise_cfg

    def add_params(self, params: list[dict], module: nn.Module, *others: Any) -> None:
        """Add the model's groups: parameters with their rate and decay, in the model's order."""
        groups: dict[tuple[str, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            key = group_of(name)
            if key not in groups:
                groups[key] = self._new_group(*key)
            groups[key]['params'].append(parameter)
        # Names of sharded parameters would put all of them at the base rate.
        fusion = sum(kind == 'cross_modal' for kind, _ in groups)
        check('METEROptimWrapperConstructor: groups of the fusion', fusion, least=1)
        params.extend(groups.values())

    def _new_group(self, kind: str, decays: bool) -> dict[str, Any]:
        """Return a group without parameters, with its rate and decay."""
        group = dict(params=[], lr=self.base_lr * self.paramwise_cfg[kind])
        if not decays:
            group['weight_decay'] = 0.0
        elif self.base_wd is not None:
            group['weight_decay'] = self.base_wd
        return group
