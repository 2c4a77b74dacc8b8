"""Look at activations, measure them, and test what the blocks contribute."""
from lm4ve.analysis.activations import frequency, magnitude, normalize
from lm4ve.analysis.capture import Analysis, Attention, Point, analyse
from lm4ve.analysis.layout import Layout
from lm4ve.analysis.points import default_points

__all__ = [
    'Analysis', 'Attention', 'Layout', 'Point', 'analyse', 'default_points',
    'frequency', 'magnitude', 'normalize'
]
