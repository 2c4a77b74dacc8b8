"""Test a checkpoint of any task of the suite; ``lm4ve test`` does the same.

python tools/test.py CONFIG CHECKPOINT
"""

from lm4ve.commands.test import main
from lm4ve.runner.command_line import run_tool

if __name__ == '__main__':
    run_tool(main)
