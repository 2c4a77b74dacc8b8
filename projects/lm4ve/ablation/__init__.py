"""Controlled ablations: a config, its variants, seeds, and a paired comparison.

``tools/analysis/ablate.py`` is the command, and ``docs/guides/ablations.md`` says
how to use it.
"""

from lm4ve.ablation.grid import Grid, Trial, Tune, Variant, load_grid
from lm4ve.ablation.statistics import Summary, holm, interval, paired_tests, summarize
from lm4ve.ablation.store import Store, choose

__all__ = [
    'Grid',
    'Store',
    'Summary',
    'Trial',
    'Tune',
    'Variant',
    'choose',
    'holm',
    'interval',
    'load_grid',
    'paired_tests',
    'summarize',
]
