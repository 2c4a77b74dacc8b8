"""Export a model as ONNX, torch.export or safetensors; ``lm4ve export`` does the same.

python tools/export.py CONFIG CHECKPOINT --format onnx
"""

import sys

from lm4ve.commands import main

if __name__ == '__main__':
    main(['export', *sys.argv[1:]])
