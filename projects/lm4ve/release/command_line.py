"""The command line of the tools that convert published checkpoints."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lm4ve.convert.released_block import is_of_block, with_block_of
from lm4ve.errors import UserError
from lm4ve.runner.checkpoint_files import (
    read_checkpoint,
    select_state,
    write_checkpoint,
)
from lm4ve.version import __version__

State = dict[str, Tensor]


def run_converter(
    argv: Sequence[str] | None,
    description: str,
    convert: Callable[..., State],
    layer: int = -1,
    **flags: dict[str, Any],
) -> None:
    """Run a tool that converts a published checkpoint, and print what it wrote.

    Args:
        argv (Sequence[str], optional): The command line. Default: the process's.
        description (str): The tool's docstring, for ``--help``.
        convert (Callable): Returns the converted state. It is called with the published
            state, the language model and its layers, and by keyword with ``origin`` (the
            file's name for messages) and the values of ``flags``.
        layer (int): The layer of the language model that released blocks were made of.
        **flags: Name of a further argument of ``convert`` -> options of its flag, as for
            ``ArgumentParser.add_argument``. The flag ``ema`` is not passed on: with it the
            published state is the moving average of the weights, but for the block, which
            is the model's.

    Raises:
        UserError: The result would overwrite the source; what ``convert`` raises.
        CheckpointError: See :func:`lm4ve.runner.checkpoint_files.read_checkpoint`.
    """
    args = _build_parser(description, layer, flags).parse_args(argv)
    if args.dst.exists() and args.src.exists() and args.dst.samefile(args.src):
        raise UserError(f"SRC and DST are the same file, '{args.src}'.")
    arguments = {name: getattr(args, name) for name in flags}
    ema = arguments.pop('ema', False)
    origin = f"'{args.src}'"
    content = read_checkpoint(args.src)
    state = select_state(content, ema, origin)
    if ema and any(is_of_block(name) for name in state):
        state = with_block_of(select_state(content, origin=origin), state, origin)
    converted = convert(state, args.llm, args.layer, origin=origin, **arguments)
    meta = dict(
        lm4ve_version=__version__,
        converted_from=args.src.name,
        weights='model_ema' if ema else 'model',
    )
    size = write_checkpoint(converted, meta, args.dst)
    of_block = [name for name in state if is_of_block(name)]
    if of_block:
        print(
            f"The block, layer {args.layer} of '{args.llm}', is left out "
            f'({len(of_block)} tensors).'
        )
    print(f'{args.dst}: {len(converted)} tensors, {size / 1e6:.1f} MB')


def _build_parser(
    description: str, layer: int, flags: dict[str, dict[str, Any]]
) -> argparse.ArgumentParser:
    """Return the parser of a converter; see :func:`run_converter`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', type=Path, help='the published checkpoint')
    parser.add_argument('dst', type=Path, help='where to write ours')
    parser.add_argument(
        '--llm',
        help='the language model of its block: a folder, a weight file, or a hub id',
    )
    parser.add_argument(
        '--layer',
        type=int,
        nargs='+',
        default=[layer],
        help=f'its layer(s); default: {layer}',
    )
    for name, options in flags.items():
        parser.add_argument(f'--{name.replace("_", "-")}', **options)
    return parser
