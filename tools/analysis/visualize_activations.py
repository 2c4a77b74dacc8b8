"""Draw activations and attention; ``lm4ve visualize`` does the same.

python tools/analysis/visualize_activations.py CONFIG CHECKPOINT --indices 0 1 2
"""

import sys

from lm4ve.commands import main

if __name__ == '__main__':
    main(['visualize', *sys.argv[1:]])
