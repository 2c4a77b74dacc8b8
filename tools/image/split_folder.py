"""Copy a folder of class folders into train and val, as the configs read pictures.

    python tools/image/split_folder.py photos data/photos
    lm4ve try package:efficientnet-lite0 data/photos --block package:all-MiniLM-L6-v2

photos/<class>/* becomes data/photos/{train,val}/<class>/*; a fifth of each class goes to
val, and with --test another one to test. The splits are those that `lm4ve try photos` draws:
copies of a picture, also in another format, stand on one side. Left out are damaged files,
files with other endings, and classes of fewer than five different pictures; left_out.csv
in the new folder names them. Nothing in photos/ changes.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.study.pictures.data import ProbeData, read_data, write_left_out


def splits_of(data: ProbeData, with_test: bool) -> pd.Series:
    """Return the split of each picture: 'train', 'val' or 'test'.

    Args:
        data (ProbeData): Pictures whose splits were all drawn.
        with_test (bool): Whether there is a test; else its pictures train.
    """
    splits = pd.Series('train', index=range(len(data)))
    splits[data.splits['val']] = 'val'
    if with_test:
        splits[data.splits['test']] = 'test'
    return splits


def main(argv: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    parser.add_argument('source', type=Path, help='has a folder for each class')
    parser.add_argument('out', type=Path, help='a new folder')
    parser.add_argument('--test', action='store_true', help='a fifth for a test, too')
    parser.add_argument('--seed', type=int, default=0, help='of the splits')
    args = parser.parse_args(argv)
    if not args.source.is_dir():
        raise UserError(f"'{args.source}' is no folder.")
    if args.out.exists() and any(args.out.iterdir()):
        raise UserError(f"'{args.out}' is not empty. Fix: a new folder.")
    data = read_data(str(args.source), seed=args.seed)
    if len(data.drawn) < len(data.splits):
        raise UserError(
            f"'{args.source}' has splits already. Fix: name the folder of a split, or use "
            'the folder as it is.'
        )
    splits = splits_of(data, args.test)
    for item, split in zip(data.items, splits, strict=True):
        copy = args.out / split / Path(item).relative_to(args.source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(item, copy)
    write_left_out(data, args.out / 'left_out.csv')
    labels = pd.Series([data.classes[label] for label in data.labels], name='class')
    print(pd.crosstab(labels, splits.rename('split'), margins=True).to_string())


if __name__ == '__main__':
    run_tool(main)
