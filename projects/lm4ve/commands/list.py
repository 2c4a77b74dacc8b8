"""List the models whose configs come with lm4ve; train and other commands find them by name.

lm4ve list --task motion
"""

from collections.abc import Sequence

from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError
from lm4ve.zoo import list_models


def main(argv: Sequence[str] | None = None) -> None:
    """Print the names of the models, a line each; exit with 2 for an unknown task."""
    parser = parser_of('list')
    args = parser.parse_args(argv)
    try:
        names = list_models(task=args.task)
    except UserError as e:
        parser.error(str(e))
    print('\n'.join(names))
