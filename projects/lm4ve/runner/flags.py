"""The flags that commands and tools share; a parser of them needs neither torch nor a host.

A flag is a row of a table: its names, and what ``ArgumentParser.add_argument`` takes.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from lm4ve.runner.cfg_options import OptionsAction

Number = TypeVar('Number', int, float)
Flags = Mapping[str, Mapping[str, Any]]

_EXAMPLE = 'override config fields, for example model.neck.block.layers="(15,)"'
#: Of every command that reads a config.
CONFIG: Flags = {
    'config': dict(help='a config file, or a name of lm4ve list'),
    '--cfg-options': dict(
        nargs='+', action=OptionsAction, metavar='FIELD=VALUE', help=_EXAMPLE
    ),
}
#: Of training and testing; mmpretrain's.
RUN: Flags = {
    **CONFIG,
    '--work-dir': dict(
        help='of logs and checkpoints; default: ./work_dirs/<config name>'
    ),
    '--launcher': dict(choices=['none', 'pytorch', 'slurm', 'mpi'], default='none'),
    '--amp': dict(
        action='store_true', help='use automatic mixed precision (needs a GPU)'
    ),
    '--no-pin-memory': dict(
        action='store_true', help='set pin_memory=False in the dataloaders'
    ),
    '--verbose': dict(action='store_true', help='show the whole log on the console'),
    # torch.distributed.launch passes this; torchrun sets LOCAL_RANK.
    '--local_rank --local-rank': dict(type=int, default=0),
}
CHECKPOINT = (
    "a checkpoint of that config, or 'pretrained': the one that comes with lm4ve"
)
_PARTIAL = "load what fits where the checkpoint is not of the config's model; the rest is untrained"
_STRICT = (
    'refuse a checkpoint whose training had another model or preprocessing than the config; '
    'default: a warning lists what differs'
)
#: Of commands that load a checkpoint with its training's config in it.
STRICT: Flags = {'--strict-config': dict(action='store_true', help=_STRICT)}
#: Of commands that evaluate a checkpoint.
EVALUATE: Flags = {
    '--allow-partial': dict(action='store_true', help=_PARTIAL),
    **STRICT,
}
_POINTS = "where to look; ':input' after a module's name for what goes into it"
#: Of what looks into a model.
INSPECT: Flags = {
    **CONFIG,
    'checkpoint': dict(help=f"{CHECKPOINT}; or 'none': untrained"),
    '--points': dict(
        nargs='+',
        default=[],
        metavar='LABEL=MODULE',
        help=f'{_POINTS}; default: around the block',
    ),
    **EVALUATE,
    '--out-dir': dict(help='default: a folder in work_dirs/<config>'),
    '--device': dict(help='default: a GPU if there is one'),
}


def at_least(bound: Number) -> Callable[[str], Number]:
    """Return a function for ``type=`` of a flag that accepts numbers from a bound on.

    Args:
        bound (int or float): The lowest number. Its type is that of the flag.
    """
    kind = type(bound)

    def read(word: str) -> Number:
        try:
            number = kind(word)
        except ValueError:
            what = 'a whole number' if kind is int else 'a number'
            raise argparse.ArgumentTypeError(f"'{word}' is not {what}.") from None
        if not number >= bound:  # NaN is refused, too
            raise argparse.ArgumentTypeError(f'{word} is below {bound}.')
        return number

    return read


class _Parser(argparse.ArgumentParser):
    """A parser whose flags with an optional choice leave other words to what follows.

    argparse would take the config in ``--amp CONFIG`` for the flag's value.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line, by default the process's, as argparse does."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args(self._bare_flags_last(words), namespace)

    def _bare_flags_last(self, words: Sequence[str]) -> list[str]:
        """Return the words, with each such flag that has no choice after it at the end."""
        kept = []
        bare = []
        for word, following in itertools.zip_longest(words, words[1:]):
            if self._is_bare(word, following):
                bare.append(word)
            else:
                kept.append(word)
        return kept + bare

    def _is_bare(self, word: str, following: str | None) -> bool:
        """Return whether a word is a flag with an optional choice, and the next one no choice."""
        action = self._option_string_actions.get(word)
        if action is None or action.nargs != '?' or not action.choices:
            return False
        return following not in action.choices


def build_parser(description: str | None, flags: Flags) -> argparse.ArgumentParser:
    """Return a parser of a table's flags; the lines of the description are kept."""
    parser = _Parser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for names, options in flags.items():
        parser.add_argument(*names.split(), **options)
    return parser
