"""Data sets that the suite makes itself: written once, whole, and only where nothing else is."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm4ve.errors import UserError

#: The file beside the data that says what they were made from.
RECIPE = 'recipe.json'


def write_once(
    folder: str | Path, recipe: dict[str, Any], noun: str, write: Callable[[Path], None]
) -> Path:
    """Write a data set into a folder, unless it is there already.

    The folder appears as a whole, so that nobody else sees half of it. Of two processes
    that write at once the first wins; both wrote the same.

    Args:
        folder (str | Path): Where to.
        recipe (dict): What the data follow from, as JSON takes it.
        noun (str): What messages call the data, for example 'moving digits'.
        write (Callable): It gets an empty folder and writes the data into it.

    Returns:
        Path: ``folder``.

    Raises:
        UserError: The folder holds something else.
    """
    folder = Path(folder)
    recipe = json.loads(json.dumps(recipe))  # as it is read back: tuples become lists
    if folder.exists() and any(folder.iterdir()):
        try:
            found = json.loads((folder / RECIPE).read_text())
        except (OSError, ValueError):
            found = None
        if found != recipe:
            raise UserError(
                f"'{folder}' is not empty and does not hold the {noun} that are asked for "
                f'({RECIPE}: found {found}, expected {recipe}). Fix: remove the folder, or set '
                'dataset.data_root to another one.'
            )
        return folder
    partial = folder.with_name(f'.{folder.name}.{uuid.uuid4().hex}')
    partial.mkdir(parents=True)
    try:
        write(partial)
        (partial / RECIPE).write_text(json.dumps(recipe, indent=1))
        try:
            os.rename(partial, folder)
        except OSError:
            # Another process was faster.
            if not (folder / RECIPE).is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
