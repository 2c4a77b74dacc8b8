"""The console command ``lm4ve``: what the tools of the same names in ``tools/`` do.

A wheel installs it, so that it runs without a clone of the repository:
``lm4ve train lm4ve::pointcloud/pointbert-demo_minilm_primitives.py``.

Importing it sets ``GOMP_SPINCOUNT``, so a program that trains imports it before torch.
"""

import contextlib
import functools
import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module

from lm4ve.errors import did_you_mean
from lm4ve.runner.pipes import exit_when_output_is_closed
from lm4ve.version import __version__

# At the end of each operation, OpenMP's threads wait for one another in a loop that keeps
# their cores busy. Where other processes need these cores, the thread that all wait for
# does not get one, and a training takes ten times as long. After this many rounds of the
# loop a thread sleeps. The library reads the variable when torch loads it.
os.environ.setdefault('GOMP_SPINCOUNT', '1000')

#: Name of a command -> what it does. Each is a module of this folder with a ``main``.
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


def main() -> None:
    """Run the command that the first word of the command line names.

    The process exits with 2 if there is no such command or a flag is wrong, and with
    141, as other tools, when nobody reads its output any more.
    """
    with exit_when_output_is_closed():
        _run_command()


def _run_command() -> None:
    """Run the command of ``sys.argv``, or print the help or the version."""
    name = '--help'
    if len(sys.argv) > 1:
        name = sys.argv[1]
    if name == '--version':
        print(__version__)
    elif name in ('-h', '--help'):
        _print_help()
    elif name not in COMMANDS:
        advice = did_you_mean(name, COMMANDS)
        print(f"error: no command '{name}'.{advice}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.argv = [f'lm4ve {name}', *sys.argv[2:]]
        _check_flags(name)
        run = _import_command(name)
        run()


def _print_help() -> None:
    """Print the commands with a line each."""
    print('usage: lm4ve COMMAND [arguments]\n')
    for command, summary in COMMANDS.items():
        print(f'  {command:10} {summary}')
    print(f"\n'lm4ve COMMAND --help' lists the arguments. This is lm4ve {__version__}.")


def _check_flags(name: str) -> None:
    """Exit for a mistake in a command's flags before torch is imported, which takes seconds.

    argparse exits by itself. Any other error is left to the command, which parses its
    flags again and reports the error in a line.
    """
    from lm4ve.commands.flags import FLAGS, parser_of

    if name not in FLAGS:
        return
    with contextlib.suppress(Exception):
        _, unknown = parser_of(name).parse_known_args()
        # A config may register a task, and `visualize` then has the flags of that task.
        if unknown and name != 'visualize':
            parser_of(name).parse_args()


def _import_command(name: str) -> Callable[[], None]:
    """Import a command's module; return its ``main``, wrapped to report errors in a line.

    The process exits if a library of the system is missing that an import needs.
    """
    # Imports leave no garbage, and looking for some takes a third of their time.
    gc.disable()
    try:
        run: Callable[[], None] = import_module(f'lm4ve.commands.{name}').main
        if name != 'list':
            from lm4ve.runner.command_line import run_tool

            run = functools.partial(run_tool, run)
    except ImportError as e:
        is_system_library = str(e).startswith('lib')  # such as libGL.so.1
        if not is_system_library:
            raise
        fix = 'on Debian or Ubuntu: apt-get install libgl1 libglib2.0-0 (for OpenCV)'
        sys.exit(f'error: {e}. Fix, {fix}')
    gc.freeze()
    gc.enable()
    return run
