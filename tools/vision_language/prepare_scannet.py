"""Turn ScanNet's scans into the arrays that SQA3D's models are trained on.

    python tools/vision_language/prepare_scannet.py data/scannet/scans \\
        data/scannet/scannet_data --labels data/scannet/scannetv2-labels.combined.tsv --workers 8

Of each scan it needs {scan}_vh_clean_2.ply, {scan}_vh_clean_2.0.010000.segs.json,
{scan}.aggregation.json and {scan}.txt. A killed run goes on where it stopped when it is
started again; scans that are done are compared with what was written.
"""

import argparse
import json
from collections.abc import Sequence

from lm4ve.runner.command_line import run_tool
from lm4ve.tasks.base.integrity import POLICIES
from lm4ve.tasks.rooms.prepare import MAX_POINTS, prepare_scans


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('scans', help="ScanNet's folder with a folder for each scan")
    parser.add_argument('out', help='the folder to write arrays to (scannet_data)')
    parser.add_argument('--labels', required=True, help='scannetv2-labels.combined.tsv')
    parser.add_argument('--names', help='a list of scans, a name a line; default: all')
    parser.add_argument(
        '--max-points', type=int, default=MAX_POINTS, help=f'of a scan; default: {MAX_POINTS}'
    )
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument(
        '--on-corrupt',
        choices=POLICIES,
        default='skip',
        help='leave scans out that cannot be read and count them, or stop',
    )
    args = parser.parse_args(argv)
    print(json.dumps(prepare_scans(**vars(args)), indent=2))


if __name__ == '__main__':
    run_tool(main)
