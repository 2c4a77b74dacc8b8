"""Tools of the command line, run in this process."""

import argparse
import runpy
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import torch

from lm4ve.commands import parse
from tests.helpers.tasks import ROOT

#: Options of a process of which the errors are read.
ERRORS_ONLY = dict(text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


#: Tool -> the command that it is.
COMMAND_TOOLS = {
    'train.py': 'train',
    'test.py': 'test',
    'export.py': 'export',
    'make_release.py': 'release',
    'analysis/ablate.py': 'ablate',
    'analysis/cost.py': 'cost',
    'analysis/visualize_activations.py': 'visualize',
}


def run_lm4ve(name: str, words: Sequence[object]) -> None:
    """Run ``lm4ve NAME WORDS`` in this process; its errors are raised."""
    texts = [str(word) for word in words]
    with patch.object(sys, 'argv', [f'lm4ve {name}', *texts]):
        import_module(f'lm4ve.commands.{name}').run(parse(name, texts))


def parse_try(words: Sequence[str]) -> argparse.Namespace:
    """Return the flags of ``lm4ve try``, checked."""
    args = parse('try', words)
    import_module('lm4ve.commands.try').check_flags(args)
    return args


def load_tool(path: str) -> dict:
    """Return what a tool defines, by name; its path is below ``tools``.

    As where it runs as a program, it can import the modules beside it.
    """
    file = ROOT / 'tools' / path
    with patch.object(sys, 'path', [str(file.parent), *sys.path]):
        return runpy.run_path(str(file))


def run_tool_here(path: str, *args):
    """Run ``main`` of a tool that takes its arguments, and return what it returns.

    Args:
        path (str): Below ``tools``, for example 'video/demo.py'.
        *args: As on a command line.
    """
    if path in COMMAND_TOOLS:
        return run_lm4ve(COMMAND_TOOLS[path], args)
    folder = (ROOT / 'tools' / path).parent
    with patch.object(sys, 'path', [str(folder), *sys.path]):
        return load_tool(path)['main']([str(a) for a in args])


def convert_here(task: str, folder: Path, content: dict, *args, **save) -> dict:
    """Save a checkpoint, convert it by the tool and return the state that this writes.

    Args:
        task (str): The tool's word for the format.
        folder (Path): The result is written to ``new/dst.pth`` below it.
        content (dict): The checkpoint.
        *args: Further arguments of the tool.
        **save: Options of ``torch.save``.
    """
    files = folder / 'src.pth', folder / 'new/dst.pth'
    torch.save(content, files[0], **save)
    run_tool_here('convert_checkpoint.py', task, *files, *args)
    return torch.load(files[1], weights_only=True)['state_dict']


def run_command(*words, **options) -> subprocess.CompletedProcess:
    """Run a command in a process of its own, and keep what it prints."""
    options = dict(text=True, capture_output=True, check=False) | options
    return subprocess.run([*map(str, words)], **options)
