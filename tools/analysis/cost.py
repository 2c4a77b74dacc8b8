"""Count the cost of a training step; ``lm4ve cost`` does the same.

python tools/analysis/cost.py CONFIG --base CONFIG --batch 32
"""

from lm4ve.commands.cost import main
from lm4ve.runner.command_line import run_tool

if __name__ == '__main__':
    run_tool(main)
