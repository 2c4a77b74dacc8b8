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
MULTIPLIERS = dict(base=1.0, head=50.0, cross_modal=5.0, neck=10.0)
#: The beginnings of names -> their group, the first that fits. METER finds its heads
#: and its fusion by their names too, and leaves rank_output and token types at the base
#: rate.
_CROSS_MODAL = (
    'image_transform',
    'text_transform',
    'image_pooler',
    'text_pooler',
    'fusion',
)
GROUPS = (('head.rank_output', 'base'), ('head', 'head'), ('neck', 'neck')) + tuple(
    (begin, 'cross_modal') for begin in _CROSS_MODAL
)
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
    parts = [p for p in name.split('.') if p not in _WRAPPERS]
    name = '.'.join(parts)
    group = next(
        (group for begin, group in GROUPS if name.startswith(f'{begin}.')), 'base'
    )
    return group, 'bias' not in parts[-1] and not _NORMS.intersection(parts)


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
        self.paramwise_cfg = {**MULTIPLIERS, **self.paramwise_cfg}

    def add_params(self, params: list[dict], module: nn.Module, *others: Any) -> None:
        """Add the model's groups: parameters with their rate and decay, in the model's order."""
        groups: dict[tuple[str, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            kind, decays = key = group_of(name)
            decay = self.base_wd if decays else 0.0
            rates = dict(lr=self.base_lr * self.paramwise_cfg[kind])
            rates |= {} if decay is None else dict(weight_decay=decay)
            groups.setdefault(key, dict(params=[], **rates))['params'].append(parameter)
        # Names of sharded parameters would put all of them at the base rate.
        fusion = sum(kind == 'cross_modal' for kind, _ in groups)
        check('METEROptimWrapperConstructor: groups of the fusion', fusion, least=1)
        params.extend(groups.values())
