"""Read a config, merge overrides into it, and check it before anything is built from it.

MMEngine ignores a misspelled key (``env_cfg.cudnn_benchmrk``) or fails on it hours
later (``clip_grad.max_nrom`` in the first step). :func:`check_config` compares the keys
of every dict with the parameters of the class that its ``type`` names, at any depth,
and MMEngine's own dicts with a table.
"""

from lm4ve.runner.config.checking import check_config
from lm4ve.runner.config.overrides import merge_options
from lm4ve.runner.config.reading import read_checked_config, read_config

__all__ = ['check_config', 'merge_options', 'read_checked_config', 'read_config']
