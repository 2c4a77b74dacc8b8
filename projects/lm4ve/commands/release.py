"""Write a self-contained release, which needs no language model to run.

lm4ve release CONFIG CHECKPOINT OUT_FOLDER
lm4ve test OUT_FOLDER/<name>.py OUT_FOLDER/<name>.pth
"""

import argparse

from lm4ve.release.release import make_release


def run(args: argparse.Namespace) -> None:
    """Write a release and print its files."""
    release = make_release(
        args.config, args.checkpoint, args.out_folder, args.half, args.cfg_options
    )
    size = release.checkpoint.stat().st_size / 1e6
    print(release.config)
    print(f'{release.checkpoint}: {size:.1f} MB, loaded again: every tensor is equal.')
    if release.kept:
        print(
            f'--half: {release.kept} frozen tensors stay in fp32, since 16 bits would change '
            'them.'
        )
