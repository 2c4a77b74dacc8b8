"""Draw activations and attention; ``lm4ve visualize`` does the same.

python tools/analysis/visualize_activations.py CONFIG CHECKPOINT --indices 0 1 2
"""

from lm4ve.commands.visualize import main
from lm4ve.runner.command_line import run_tool

if __name__ == '__main__':
    run_tool(main)
