"""Which WordNet ids (wnids) ImageNet and its variants have, in the models' order.

The lists are those that timm carries: 1,000 wnids in sorted order, which is the
class order of every ImageNet-1k model, and the 200 of ImageNet-A and of -R.
"""

from functools import cache
from importlib import resources

from lm4ve.errors import UserError

#: Variant -> timm's list of its wnids.
_LISTS = {
    'a': 'imagenet_a_synsets.txt',
    'r': 'imagenet_r_synsets.txt',
    'sketch': 'imagenet_synsets.txt',
    'c': 'imagenet_synsets.txt',
}
VARIANTS = tuple(_LISTS)


@cache
def _read(name: str) -> tuple[str, ...]:
    try:
        # The folder of the lists is no package: start at timm itself.
        folder = resources.files('timm')
    except ImportError as e:
        raise UserError(
            'The class lists of ImageNet variants come with the package timm, '
            f'which cannot be imported ({e}). Fix: pip install timm'
        ) from e
    text = (folder / 'data' / '_info' / name).read_text(encoding='utf-8')
    return tuple(text.split())


def class_indices(variant: str) -> dict[str, int]:
    """Return the variant's wnids, each with its index among the 1,000 classes.

    Args:
        variant (str): 'a', 'r' (200 classes), 'sketch' or 'c' (1,000).

    Raises:
        UserError: Another variant was named, or timm is not installed.
    """
    if variant not in _LISTS:
        raise UserError(f"dataset.variant='{variant}' must be one of {', '.join(VARIANTS)}.")
    index = {w: i for i, w in enumerate(_read('imagenet_synsets.txt'))}
    return {w: index[w] for w in _read(_LISTS[variant])}
