"""Read a config, merge overrides into it, and check it before anything is built from it.

:mod:`.final` makes the config of a command, and has the order of all steps.
"""

from lm4ve.runner.config.checking import check_config
from lm4ve.runner.config.overrides import merge_options
from lm4ve.runner.config.reading import read_checked_config, read_config

__all__ = ['check_config', 'merge_options', 'read_checked_config', 'read_config']
