"""The answer of the hub: repositories of tiny models, in a cache as huggingface_hub keeps it.

Nothing of the hub's library is replaced. Without a network (``tests/conftest.py``) it
reads its cache, whose place :func:`use_cache` sets, so that the code under test and
transformers go all the way that they go for their users.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from huggingface_hub import constants

#: The commit of every repository.
COMMIT = '0123456789abcdef' * 2 + '01234567'


def use_cache(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let the hub's library, and that of child processes, keep its cache in a folder."""
    patch.setattr(constants, 'HF_HUB_CACHE', str(cache))
    patch.setenv('HF_HUB_CACHE', str(cache))


def add_repository(
    cache: Path,
    name: str,
    write: Callable[[Path], object],
    revision: str = 'main',
    absent: Sequence[str] = (),
) -> Path:
    """Put a repository into a cache of the hub, as if all of it had been downloaded.

    Args:
        cache (Path): The cache.
        name (str): The hub id, ``org/name``.
        write (callable): Writes the files into the folder that it is given.
        revision (str): The branch or tag under which they are found.
        absent (Sequence[str]): Files that were asked for while there was a network, and
            which the repository does not have.

    Returns:
        Path: The folder of the files.
    """
    repository = cache / f'models--{name.replace("/", "--")}'
    files = repository / 'snapshots' / COMMIT
    os.makedirs(files)
    reference = repository / 'refs' / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(COMMIT)
    for filename in absent:
        marker = repository / '.no_exist' / COMMIT / filename
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    write(files)
    return files
