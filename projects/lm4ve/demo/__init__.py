"""The embedded default: real, small data from installed packages."""
from lm4ve.demo.digits import DigitsDataset
from lm4ve.demo.primitives import PrimitivesDataset
from lm4ve.demo.textured_digits import TexturedDigits

__all__ = ['DigitsDataset', 'PrimitivesDataset', 'TexturedDigits']
