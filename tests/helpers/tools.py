"""Tools of the command line, run in this process."""

import runpy
import sys
from unittest.mock import patch

from tests.helpers.tasks import ROOT


def run_tool_here(path: str, *args) -> None:
    """Run ``main`` of a tool that takes its arguments.

    Args:
        path (str): Below ``tools``, for example 'video/demo.py'.
        *args: As on a command line.
    """
    file = ROOT / 'tools' / path
    with patch.object(sys, 'path', [str(file.parent), *sys.path]):
        runpy.run_path(str(file))['main']([str(a) for a in args])
