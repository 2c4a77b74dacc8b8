"""Train a model of any task of the suite; ``lm4ve train`` does the same.

python tools/train.py configs/lm4ve/vit-demo_minilm_digits.py
"""

from lm4ve.commands.train import main
from lm4ve.runner.command_line import run_tool

if __name__ == '__main__':
    run_tool(main)
