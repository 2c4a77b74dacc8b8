"""Run a grid of controlled ablations; ``lm4ve ablate`` does the same.

python tools/analysis/ablate.py GRID --work-dir work_dirs/ablations
"""

from lm4ve.commands.ablate import main
from lm4ve.runner.command_line import run_tool

if __name__ == '__main__':
    run_tool(main)
