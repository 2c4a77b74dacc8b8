"""Export a model as ONNX, torch.export or safetensors; ``lm4ve export`` does the same.

python tools/export.py CONFIG CHECKPOINT --format onnx
"""

from lm4ve.commands.export import main
from lm4ve.runner.command_line import run_tool

if __name__ == '__main__':
    run_tool(main)
