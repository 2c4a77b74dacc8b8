"""Make mmaction2's video lists from Something-Something V2's or VideoMAE's.

    python tools/video/video_lists.py ssv2 labels.json train.json \\
        data/sthv2/sthv2_train_list_videos.txt
    python tools/video/video_lists.py videomae train.csv OUT.txt \\
        --root /data/ssv2

Something-Something V2 comes with JSON files of its own; VideoMAE reads headerless CSV
files, with a space between path and label and no frame count. A list of mmaction2 has a
``path label`` a line.
"""

import json
import re
from pathlib import Path, PurePosixPath

from lm4ve.data.labels import lines_of
from lm4ve.errors import UserError
from lm4ve.files import write_text
from lm4ve.runner.command_line import build_parser, run_tool

Entries = list[tuple[str, int]]


def read_ssv2(
    labels: str | Path, split: str | Path, extension: str = 'webm'
) -> Entries:
    """Read Something-Something V2's official files.

    Args:
        labels (str | Path): ``something-something-v2-labels.json`` (or
            ``labels.json``): template -> number as a string.
        split (str | Path): ``...-train.json`` or ``...-validation.json``: a list with
            ``id`` and ``template``, in whose text the placeholders are in brackets; or
            ``...-test-answers.csv``, ``id;template``.
        extension (str): The ending of the video files, which are named by their id.

    Returns:
        list[tuple[str, int]]: File name and label.

    Raises:
        UserError: The labels are not numbered from 0.
        KeyError: A template is missing or unknown: the JSON file of the test set has
            none.
    """
    numbers = {k: int(v) for k, v in json.loads(Path(labels).read_bytes()).items()}
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise UserError(
            f"'{labels}': expected the numbers 0 to {len(numbers) - 1}, each once."
        )
    entries = []
    for identity, text in _read_templates(Path(split)):
        template = re.sub(r'[\[\]]', '', text.strip())
        entries.append((f'{identity}.{extension}', numbers[template]))
    return entries


def _read_templates(split: Path) -> list[tuple[str, str]]:
    """Return the id and the template of each video of a split's file."""
    samples = []
    if split.suffix == '.csv':
        for line in lines_of(split.read_bytes(), split):
            if line:
                identity, template = line.split(';', 1)
                samples.append((identity, template))
        return samples
    for sample in json.loads(split.read_bytes()):
        samples.append((sample['id'], sample['template']))
    return samples


def read_videomae(path: str | Path, root: str = '') -> Entries:
    """Read a ``train.csv``, ``val.csv`` or ``test.csv`` of VideoMAE.

    Args:
        path (str | Path): Headerless; path, white space, label. Paths may hold spaces.
        root (str): A leading part of the paths to remove, which is ``data_prefix`` in
            mmaction2.

    Returns:
        list[tuple[str, int]]: Path and label.

    Raises:
        ValueError: A line has another form, or a path is not below ``root``.
    """
    entries = []
    for line in lines_of(Path(path).read_bytes(), path):
        name, label = line.rsplit(maxsplit=1)
        if root:
            name = str(PurePosixPath(name).relative_to(root))
        entries.append((name.strip(), int(label)))
    return entries


def main(argv: list[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    kinds = parser.add_subparsers(dest='kind', required=True)
    ssv2 = kinds.add_parser('ssv2', help="the data set's official files")
    ssv2.add_argument('labels', help='template -> number, JSON')
    ssv2.add_argument(
        'split', help='train or validation, JSON; or the test answers, CSV'
    )
    ssv2.add_argument('out', help='the list to write')
    ssv2.add_argument(
        '--extension', default='webm', help='of the video files; default: webm'
    )
    videomae = kinds.add_parser('videomae', help="VideoMAE's CSV files")
    videomae.add_argument('csv', help='"path label" a line')
    videomae.add_argument('out', help='the list to write')
    videomae.add_argument(
        '--root', default='', help='leading part of the paths to take off'
    )
    args = parser.parse_args(argv)
    if args.kind == 'ssv2':
        entries = read_ssv2(args.labels, args.split, args.extension)
    else:
        entries = read_videomae(args.csv, args.root)
    write_text(''.join(f'{name} {label}\n' for name, label in entries), args.out)
    classes = len({label for _, label in entries})
    print(f'{args.out}: {len(entries)} videos of {classes} classes')


if __name__ == '__main__':
    run_tool(main)
