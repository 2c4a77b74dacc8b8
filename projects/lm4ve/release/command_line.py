"""The command line of the tools that convert published checkpoints."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lm4ve.convert.released_block import BLOCK_PREFIX
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
    """Convert one file as a command line says, and print what was written.

    Args:
        argv (Sequence[str], optional): The command line. Default: the process's.
        description (str): The tool's docstring.
        convert (Callable): A task's function of the state, the language model, the
            layers, ``origin`` (the file's name in messages) and the values of
            ``flags``.
        layer (int): The layer of the language model that released blocks are.
        **flags: Name of a further argument of ``convert`` -> options of its flag, as of
            ``ArgumentParser.add_argument``. ``ema`` chooses the moving average instead.

    Raises:
        UserError: The result would overwrite the source; what ``convert`` raises.
        CheckpointError: See :func:`lm4ve.runner.checkpoint_files.read_checkpoint`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('src', type=Path, help='the published checkpoint')
    add('dst', type=Path, help='where to write ours')
    add(
        '--llm',
        help='the language model of its block: a folder, a weight file, or a hub id',
    )
    add(
        '--layer',
        type=int,
        nargs='+',
        default=[layer],
        help=f'its layer(s); default: {layer}',
    )
    for name, options in flags.items():
        add(f'--{name.replace("_", "-")}', **options)
    args = parser.parse_args(argv)
    if args.dst.exists() and args.src.exists() and args.dst.samefile(args.src):
        raise UserError(f"SRC and DST are the same file, '{args.src}'.")
    given = {name: getattr(args, name) for name in flags}
    ema, origin = given.pop('ema', False), f"'{args.src}'"
    state = select_state(read_checkpoint(args.src), ema, origin)
    converted = convert(state, args.llm, args.layer, origin=origin, **given)
    weights = 'model_ema' if ema else 'model'
    meta = dict(
        lm4ve_version=__version__, converted_from=args.src.name, weights=weights
    )
    size = write_checkpoint(converted, meta, args.dst)
    if args.llm is not None:
        left = sum(BLOCK_PREFIX in name for name in state)
        print(
            f"The block, layer {args.layer} of '{args.llm}', is left out ({left} tensors)."
        )
    print(f'{args.dst}: {len(converted)} tensors, {size / 1e6:.1f} MB')
