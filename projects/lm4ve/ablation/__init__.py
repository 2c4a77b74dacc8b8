"""Controlled ablations: a config, its variants, seeds, and a paired comparison.

``lm4ve ablate`` is the command, and ``docs/guides/ablations.md`` describes a grid file.
"""

from lm4ve.ablation.grid import Grid, Trial
from lm4ve.ablation.grid_files import load_grid
from lm4ve.ablation.statistics import (
    confidence_interval,
    holm,
    paired_tests,
    summarize,
)
from lm4ve.ablation.store import Store, select_tuned

__all__ = [
    'Grid',
    'Store',
    'Trial',
    'confidence_interval',
    'holm',
    'load_grid',
    'paired_tests',
    'select_tuned',
    'summarize',
]
