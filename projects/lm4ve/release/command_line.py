"""What the tools that convert published checkpoints share: arguments, reading, writing."""

import argparse
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from lm4ve.errors import UserError
from lm4ve.runner.checkpoint_files import read_checkpoint, select_state, write_checkpoint
from lm4ve.tasks.base.released_block import BLOCK_PREFIX
from lm4ve.version import __version__

State = dict[str, Tensor]


def converter_parser(description: str, layer: int = -1) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all converters take.

    Args:
        description (str): The tool's docstring.
        layer (int): The layer of the language model that released blocks are.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', type=Path, help='the published checkpoint')
    parser.add_argument('dst', type=Path, help='where to write ours')
    parser.add_argument(
        '--llm',
        help='the language model that a block in the checkpoint is of: a Meta or Hugging Face '
        'folder, a weight file, or a hub id',
    )
    parser.add_argument(
        '--layer', type=int, nargs='+', default=[layer], help=f'its layer(s); default: {layer}'
    )
    return parser


def convert_file(
    args: argparse.Namespace, convert: Callable[..., State], ema: bool = False, **options: object
) -> None:
    """Convert one file as the command line says, and print what was written.

    Args:
        args (Namespace): From :func:`converter_parser`.
        convert (Callable): A task's function; takes the state, the language model,
            the layers, ``options`` and ``origin``, what messages call the file.
        ema (bool): Convert the moving average instead of the weights.
        **options: Further arguments of ``convert``.

    Raises:
        UserError: The result would overwrite the source; what ``convert`` raises.
        CheckpointError: See :func:`lm4ve.runner.checkpoint_files.read_checkpoint`.
    """
    if args.dst.exists() and args.src.exists() and args.dst.samefile(args.src):
        raise UserError(f"SRC and DST are the same file, '{args.src}'.")
    origin = f"'{args.src}'"
    state = select_state(read_checkpoint(args.src), ema, origin)
    converted = convert(state, args.llm, args.layer, origin=origin, **options)
    meta = dict(
        lm4ve_version=__version__,
        converted_from=args.src.name,
        weights='model_ema' if ema else 'model',
    )
    size = write_checkpoint(converted, meta, args.dst)
    if args.llm is not None:
        left = sum(BLOCK_PREFIX in name for name in state)
        print(
            f"The block equals layer {args.layer} of '{args.llm}' and is left out ({left} tensors)."
        )
    print(f'{args.dst}: {len(converted)} tensors, {size / 1e6:.1f} MB')
