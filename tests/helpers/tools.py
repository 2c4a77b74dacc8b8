"""Tools of the command line, run in this process."""

import runpy

from tests.helpers.tasks import ROOT


def run_tool_here(path: str, *args) -> None:
    """Run ``main`` of a tool that takes its arguments.

    Args:
        path (str): Below ``tools``, for example 'video/demo.py'.
        *args: As on a command line.
    """
    runpy.run_path(str(ROOT / 'tools' / path))['main']([str(a) for a in args])
