"""The console command ``lm4ve``: what the tools of the same names in ``tools/`` do.

A wheel installs it, so that it runs without a clone of the repository:
``lm4ve train lm4ve::pointcloud/pointbert-demo_minilm_primitives.py``.

Importing it sets ``GOMP_SPINCOUNT``, so a program that trains imports it before torch.
"""

import argparse
import contextlib
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

from lm4ve.errors import UserError, did_you_mean
from lm4ve.runner.exit_codes import USERS_MISTAKE
from lm4ve.runner.pipes import exit_when_output_is_closed
from lm4ve.version import __version__

# At the end of each operation, OpenMP's threads wait for one another in a loop that keeps
# their cores busy. Where other processes need these cores, the thread that all wait for
# does not get one, and a training takes ten times as long. After this many rounds of the
# loop a thread sleeps. The library reads the variable when torch loads it.
os.environ.setdefault('GOMP_SPINCOUNT', '1000')

#: Name of a command -> what it does. Each is a module of this folder with a function ``run``,
#: which takes the parsed flags.
COMMANDS = {
    'try': 'ask whether a block helps your encoder on your data',
    'list': 'list the models whose configs come with lm4ve',
    'train': 'train a model of any task',
    'test': 'test a checkpoint',
    'visualize': 'draw activations and attention of a checkpoint',
    'ablate': 'run a grid of controlled ablations and compare its variants',
    'cost': 'count the cost of a training step, without weights or a GPU',
    'export': 'write a model as ONNX, torch.export or safetensors',
    'release': 'write a self-contained release of a checkpoint',
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the command that the first word of a command line names.

    The flags are parsed once, before torch is imported, which takes seconds. What runs then
    is guarded once, by :func:`lm4ve.runner.error_boundary.run_tool`. What prints without
    torch ends silently where nobody reads it any more.

    Args:
        words (Sequence[str], optional): The command line; default: the process's.

    Raises:
        SystemExit: With 2 if there is no such command or a flag is wrong; else as
            ``run_tool`` says.
    """
    if words is None:
        words = sys.argv[1:]
    name = words[0] if words else '--help'
    with exit_when_output_is_closed(), _exit_for_mistakes():
        if name not in COMMANDS:
            _answer(name)
            return
        sys.argv = [f'lm4ve {name}', *words[1:]]
        args = parse(name, words[1:])
        if name == 'list':
            import_module('lm4ve.commands.list').run(args)
            return
    run = _import_command(name)
    from lm4ve.runner.error_boundary import run_tool

    run_tool(functools.partial(run, args))


@contextlib.contextmanager
def _exit_for_mistakes() -> Iterator[None]:
    """Exit with 2 for a mistake of the user, which is printed in a line."""
    try:
        yield
    except UserError as e:
        print(f'error: {e}', file=sys.stderr)
        sys.exit(USERS_MISTAKE)


def _answer(word: str) -> None:
    """Print the version or the help; any other word is no command.

    Raises:
        UserError: It is another word.
    """
    if word == '--version':
        print(__version__)
    elif word in ('-h', '--help'):
        _print_help()
    else:
        raise UserError(f"no command '{word}'.{did_you_mean(word, COMMANDS)}")


def _print_help() -> None:
    """Print the commands with a line each."""
    print('usage: lm4ve COMMAND [arguments]\n')
    for command, summary in COMMANDS.items():
        print(f'  {command:10} {summary}')
    print(f"\n'lm4ve COMMAND --help' lists the arguments. This is lm4ve {__version__}.")


def parse(name: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the flags of a command; argparse exits for a mistake in them.

    A config may register a task, and ``visualize`` then has the flags of that task. So
    flags that are not known yet pass here, and all words are in ``words_to_parse``.

    Args:
        name (str): The command.
        words (Sequence[str]): Those that follow it.

    Raises:
        UserError: A word of ``--cfg-options`` cannot be read.
    """
    from lm4ve.commands.flags import parser_of

    parser = parser_of(name)
    if name != 'visualize':
        return parser.parse_args(words)
    args, _ = parser.parse_known_args(words)
    args.words_to_parse = words
    return args


def _import_command(name: str) -> Callable[[argparse.Namespace], None]:
    """Import a command's module, and return its ``run``.

    The process exits if a library of the system is missing that an import needs.
    """
    # Imports leave no garbage, and looking for some takes a third of their time.
    gc.disable()
    try:
        run: Callable[[argparse.Namespace], None]
        run = import_module(f'lm4ve.commands.{name}').run
    except ImportError as e:
        is_system_library = str(e).startswith('lib')  # such as libGL.so.1
        if not is_system_library:
            raise
        fix = 'on Debian or Ubuntu: apt-get install libgl1 libglib2.0-0 (for OpenCV)'
        sys.exit(f'error: {e}. Fix, {fix}')
    gc.freeze()
    gc.enable()
    return run
