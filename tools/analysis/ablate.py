"""Run a grid of controlled ablations; ``lm4ve ablate`` does the same.

python tools/analysis/ablate.py GRID --work-dir work_dirs/ablations
"""

import sys

from lm4ve.commands import main

if __name__ == '__main__':
    main(['ablate', *sys.argv[1:]])
