"""Test a checkpoint of any task of the suite; ``lm4ve test`` does the same.

python tools/test.py CONFIG CHECKPOINT
"""

import sys

from lm4ve.commands import main

if __name__ == '__main__':
    main(['test', *sys.argv[1:]])
