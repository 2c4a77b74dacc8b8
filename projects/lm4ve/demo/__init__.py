"""The embedded default: real, small data from installed packages."""
from lm4ve.demo.digits import DigitsDataset

__all__ = ['DigitsDataset']
