"""Whether features come out of a norm, read from the graph that autograd has recorded.

The block's place is before an encoder's final norm, which the neck then applies. Names of
that norm differ in every encoder; the operations between it and the neck do not.
"""

from typing import Any

from torch import Tensor, nn

#: Operations that move, copy or average tokens without changing what a norm has made.
_PASSED = (
    *('View', 'UnsafeView', 'ReshapeAlias', 'Permute', 'Transpose', 'T', 'Clone', 'Slice'),
    *('Select', 'Squeeze', 'Unsqueeze', 'Mean', 'Alias', 'ToCopy', 'Cat', 'Split', 'Unbind'),
    *('AdaptiveAvgPool2D', 'AdaptiveAvgPool3D', 'MkldnnAdaptiveAvgPool2D', 'AsStrided'),
)
_NORMS = ('NativeLayerNorm', 'NativeGroupNorm', 'FusedRmsNorm', 'RmsNorm')
_FAR = 16


def norm_before(x: Tensor) -> tuple[nn.Parameter | None] | None:
    """Find the norm that made features, if no other operation came after it.

    Args:
        x (Tensor): Features with the graph that made them.

    Returns:
        tuple | None: The norm's gain (None if it has none), or None: no norm is near.
    """
    node: Any = x.grad_fn
    for _ in range(_FAR):
        if node is None:
            return None
        name = type(node).__name__.partition('Backward')[0].lstrip('_')
        if name in _NORMS:
            gains = [getattr(n, 'variable', None) for n, _ in node.next_functions[1:] if n]
            return (next((g for g in gains if g is not None), None),)
        if name not in _PASSED:
            return None
        node = next((n for n, _ in node.next_functions if n is not None), None)
    return None
