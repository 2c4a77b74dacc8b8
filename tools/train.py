"""Train a model of any task of the suite; ``lm4ve train`` does the same.

python tools/train.py configs/lm4ve/vit-demo_minilm_digits.py
"""

import sys

from lm4ve.commands import main

if __name__ == '__main__':
    main(['train', *sys.argv[1:]])
