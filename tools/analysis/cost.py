"""Count the cost of a training step; ``lm4ve cost`` does the same.

python tools/analysis/cost.py CONFIG --base CONFIG --batch 32
"""

import sys

from lm4ve.commands import main

if __name__ == '__main__':
    main(['cost', *sys.argv[1:]])
