"""Warnings of other libraries that a user of lm4ve can do nothing about."""

import warnings

#: They come from MMEngine about itself, and from host libraries about optional
#: operators of mmcv that no model of this suite uses.
FOREIGN = (
    r'"FileClient" will be deprecated|"HardDiskBackend" is the alias'
    r'|MultiScaleDeformableAttention|mmcv-lite|pkg_resources is deprecated'
    r'|`broadcast_buffers` is deprecated'
    r'|Failed to search registry with scope'
)


def hush() -> None:
    """Drop these warnings from here on in this process."""
    warnings.filterwarnings('ignore', message=f'(?s).*(?:{FOREIGN})')
