"""Run a command as if only one extra's packages were installed.

What an extra needs is read from the installed metadata and closed over the
requirements of requirements. Everything else is hidden from the command and from the
processes that it starts, by a ``sitecustomize`` that Python runs before anything.

Commands fork from a process that has imported PyTorch and MMEngine with the packages of
the core alone, which every extra brings, and nothing of lm4ve.
"""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from unittest.mock import patch

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import quick_python
from tests.helpers.tasks import ROOT

#: Runs first in each process. Returning None hides a module; raising would break
#: other packages' own checks of what is installed.
HIDE = """\
import functools, json, os, sys
from importlib.machinery import PathFinder
from importlib.metadata import DistributionFinder, MetadataPathFinder


@functools.cache
def parsed(text):
    return {kind: set(names) for kind, names in json.loads(text).items()}


def hidden(kind):
    return parsed(os.environ['LM4VE_TEST_HIDDEN'])[kind]


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition('.')[0] in hidden('modules'):
            return None
        return super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, context=DistributionFinder.Context()):
        for found in MetadataPathFinder.find_distributions(context):
            if found.metadata['Name'] not in hidden('distributions'):
                yield found


sys.meta_path[:] = [Finder if f is PathFinder else f for f in sys.meta_path]
"""


def needed_by(extras: tuple[str, ...]) -> set[str]:
    """Return the distributions that lm4ve with these extras brings.

    Args:
        extras (tuple[str, ...]): Names of extras; an empty tuple is the core.

    Returns:
        set[str]: Normalized names, ``lm4ve`` among them.
    """
    pending = [Requirement(f'lm4ve[{",".join(extras)}]')]
    seen = set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in _requires(name):
            needed = Requirement(text)
            if _applies(needed, requirement.extras):
                pending.append(needed)
    return {name for name, _ in seen}


def _applies(needed: Requirement, extras: set[str]) -> bool:
    """Whether a package that is installed with some extras needs this one, here."""
    if needed.marker is None:
        return True
    return any(needed.marker.evaluate(dict(extra=extra)) for extra in extras or {''})


def _environments_own():
    """Look for packages in the environment alone, within this context.

    An imported setuptools puts its own copies of packages on the path: they are none of
    the environment's, and hiding them would break it.
    """
    return patch.object(sys, 'path', [p for p in sys.path if not p.endswith('_vendor')])


@functools.cache
def _requires(name: str) -> list[str]:
    with _environments_own():
        try:
            requirements = metadata.requires(name)
        except metadata.PackageNotFoundError:
            return []  # for another platform
    if requirements is None:
        return []
    return requirements


@functools.cache
def _hidden_from(extras: tuple[str, ...]) -> str:
    """Return what an environment with some extras lacks of this one, as JSON."""
    kept = needed_by(extras)
    with _environments_own():
        installed = {d.metadata['Name'] for d in metadata.distributions()}
        owners = metadata.packages_distributions()
    modules = []
    for module, names in owners.items():
        if module == 'tests':
            continue  # some distributions install one; here it is ours
        if kept.isdisjoint(canonicalize_name(name) for name in names):
            modules.append(module)
    distributions = [name for name in installed if canonicalize_name(name) not in kept]
    return json.dumps(dict(modules=modules, distributions=distributions))


@functools.cache
def _paths() -> str:
    site = Path(tempfile.mkdtemp(prefix='site'))
    atexit.register(shutil.rmtree, site, ignore_errors=True)
    (site / 'sitecustomize.py').write_text(HIDE)
    return os.pathsep.join(map(str, (site, ROOT / 'projects', ROOT)))


def run_alone(
    extras: tuple[str, ...], *command, folder: Path, real: bool = False
) -> str:
    """Run ``python *command`` with no other packages than the extras'.

    Args:
        extras (tuple[str, ...]): Names of extras.
        *command: A script and its arguments, or ``-c`` and code.
        folder (Path): Where the command runs.
        real (bool): Start a new Python for it, and fork from none.

    Returns:
        str: What it printed. It has ended well, or this raises AssertionError.
    """
    python = sys.executable
    if not real:
        core = (('PYTHONPATH', _paths()), ('LM4VE_TEST_HIDDEN', _hidden_from(())))
        python = quick_python.folder(('torch', 'mmengine.runner'), core) / 'python'
    variables = dict(
        PYTHONPATH=_paths(),
        LM4VE_TEST_HIDDEN=_hidden_from(extras),
        LM4VE_CACHE=str(folder / 'cache'),
    )
    done = subprocess.run(
        [python, *map(str, command)],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout
