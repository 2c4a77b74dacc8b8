"""Write a self-contained release; ``lm4ve release`` does the same.

python tools/make_release.py CONFIG CHECKPOINT OUT_FOLDER
"""

import sys

from lm4ve.commands import main

if __name__ == '__main__':
    main(['release', *sys.argv[1:]])
