"""Capture the activations of a model, measure and draw them."""

from lm4ve.analysis.activations import Analysis, Attention, Point
from lm4ve.analysis.capture import analyse
from lm4ve.analysis.measures import frequency, magnitude, normalize
from lm4ve.analysis.points import default_points
from lm4ve.tasks.base.layouts import Layout

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
