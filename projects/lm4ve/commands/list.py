"""List the models whose configs come with lm4ve; train and other commands find them by name.

lm4ve list --task motion
"""

from collections.abc import Sequence

from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError
from lm4ve.zoo import list_models


def main(argv: Sequence[str] | None = None) -> None:
    parser = parser_of('list')
    try:
        print(*list_models(task=parser.parse_args(argv).task), sep='\n')
    except UserError as e:
        parser.error(str(e))
