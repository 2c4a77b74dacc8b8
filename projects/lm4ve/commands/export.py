"""Export a trained model of any task as a file that other programs run.

    lm4ve export CONFIG CHECKPOINT --format onnx
    lm4ve export CONFIG CHECKPOINT --format torch-export --out model.pt2

The file is read back and compared with the model at other batch sizes; it is kept if
they agree. docs/guides/deployment.md lists the inputs and outputs of each task.
"""

import argparse
from pathlib import Path

from lm4ve.errors import UserError
from lm4ve.release.exporting import FORMATS, check_packages, export_model
from lm4ve.runner.config import read_checked_config


def run(args: argparse.Namespace) -> None:
    """Export a model and print what the file takes and gives."""
    if args.with_block and args.format != 'safetensors':
        raise UserError(
            f'--with-block is for safetensors; {args.format} holds the block.'
        )
    check_packages(args.format)
    out = args.out
    if out is None:
        name = Path(args.config).stem
        out = f'work_dirs/{name}/{name}{FORMATS[args.format]}'
    written = export_model(
        read_checked_config(args.config, args.cfg_options),
        args.checkpoint,
        args.format,
        out,
        overwrite=args.overwrite,
        tolerance=args.tolerance,
        with_block=args.with_block,
        allow_partial=args.allow_partial,
        strict_config=args.strict_config,
    )
    print(f'{written.path}: {written.size / 1e6:.1f} MB')
    # Safetensors have neither inputs nor outputs.
    for word in ('input', 'output'):
        for tensor in written.metadata.get(f'{word}s', ()):
            shape = ', '.join(str(size) for size in tensor['shape'])
            print(f'  {word:6} {tensor["name"]}: {tensor["dtype"]} [{shape}]')
    print(f'Read back and compared: {written.difference:.1e} apart.')
