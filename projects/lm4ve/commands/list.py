"""List the models whose configs come with lm4ve; train and other commands find them by name.

lm4ve list --task motion
"""

import argparse
from collections.abc import Sequence

from lm4ve.apis import list_models


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='List the models')
    parser.add_argument('--task', help='only those of it, for example image')
    args = parser.parse_args(argv)
    print(*list_models(task=args.task), sep='\n')
