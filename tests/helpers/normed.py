"""Whether the features of a neck come out of a norm: the tables of backbones leave it out."""

from typing import Any

from lm4ve.necks import LLMBlockNeck

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


def note_norms(neck: LLMBlockNeck) -> list[bool]:
    """Return a list that gets, at each run of a neck, whether its features are normed."""
    normed: list[bool] = []
    neck.register_forward_pre_hook(
        lambda m, x: normed.append(_comes_from_norm(m.pick(x[0]).grad_fn))
    )
    return normed


def _comes_from_norm(node: Any) -> bool:
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
