"""Write a self-contained release; ``lm4ve release`` does the same.

python tools/make_release.py CONFIG CHECKPOINT OUT_FOLDER
"""

from lm4ve.commands.release import main
from lm4ve.runner.command_line import run_tool

if __name__ == '__main__':
    run_tool(main)
