"""List the models whose configs come with lm4ve; train and other commands find them by name.

lm4ve list --task motion
"""

import argparse

from lm4ve.zoo import list_models


def run(args: argparse.Namespace) -> None:
    """Print the names of the models, a line each.

    Raises:
        UserError: There is no such task.
    """
    print('\n'.join(list_models(task=args.task)))
