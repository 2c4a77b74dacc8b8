"""The names that a program with flags needs: parser, config, runner and error boundary.

``tools/`` imports them from here.
"""

from lm4ve.runner.config import read_config as read_config
from lm4ve.runner.config.final import final_config as final_config
from lm4ve.runner.config.final import finish_config as finish_config
from lm4ve.runner.config.loading import evaluate_checkpoint as evaluate_checkpoint
from lm4ve.runner.error_boundary import AFTER_STOP as AFTER_STOP
from lm4ve.runner.error_boundary import ERRORS as ERRORS
from lm4ve.runner.error_boundary import STOP_FILE as STOP_FILE
from lm4ve.runner.error_boundary import report as report
from lm4ve.runner.error_boundary import run_tool as run_tool
from lm4ve.runner.flags import CONFIG as CONFIG
from lm4ve.runner.flags import RUN as RUN
from lm4ve.runner.flags import build_parser as build_parser
from lm4ve.runner.runner import build_runner as build_runner
