"""The WordNet ids (wnids) of ImageNet and its variants, in the order of the models' classes.

The lists come with timm: 1,000 wnids in sorted order, which is the class order of every
ImageNet-1k model, and the 200 of ImageNet-A and of -R.
"""

from functools import cache
from importlib import resources

from lm4ve.errors import check

#: Variant -> timm's list of its wnids.
_LISTS = {
    'a': 'imagenet_a_synsets.txt',
    'r': 'imagenet_r_synsets.txt',
    'sketch': 'imagenet_synsets.txt',
    'c': 'imagenet_synsets.txt',
}


@cache
def _read(name: str) -> tuple[str, ...]:
    """Return the wnids of one of timm's lists."""
    # The folder of the lists is no package: start at timm itself.
    file = resources.files('timm') / 'data' / '_info' / name
    return tuple(file.read_text(encoding='utf-8').split())


def class_indices(variant: str) -> dict[str, int]:
    """Return the wnids of a variant of ImageNet, each with its index among the 1,000 classes.

    Args:
        variant (str): 'a', 'r' (200 classes), 'sketch' or 'c' (1,000).
    """
    check('dataset.variant', variant, choices=_LISTS)
    all_wnids = _read('imagenet_synsets.txt')
    index_of = {wnid: index for index, wnid in enumerate(all_wnids)}
    return {wnid: index_of[wnid] for wnid in _read(_LISTS[variant])}
