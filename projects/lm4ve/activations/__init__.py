"""Look at activations, measure them, and test what the blocks contribute."""

from lm4ve.activations.capture import Analysis, Attention, Point, analyse
from lm4ve.activations.measures import frequency, magnitude, normalize
from lm4ve.activations.points import default_points
from lm4ve.tasks.analysis import Layout

__all__ = [
    'Analysis',
    'Attention',
    'Layout',
    'Point',
    'analyse',
    'default_points',
    'frequency',
    'magnitude',
    'normalize',
]
