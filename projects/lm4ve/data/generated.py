"""Writes generated data sets: once, as a whole, and only into an empty folder."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lm4ve.errors import UserError
from lm4ve.files import read_json

#: The file beside the data with the parameters that determine them.
RECIPE = 'recipe.json'


def write_once(
    folder: str | Path, recipe: dict[str, Any], noun: str, write: Callable[[Path], None]
) -> Path:
    """Write a data set into a folder, unless it is there already.

    The folder appears as a whole, so that no other process reads a part of it. Of two
    processes that write at once the first wins; both wrote the same.

    Args:
        folder (str | Path): The output folder.
        recipe (dict): The parameters that determine the data, serializable as JSON.
        noun (str): The data's name in messages, for example 'moving digits'.
        write (Callable): Writes the data into an empty folder.

    Returns:
        Path: ``folder``.

    Raises:
        UserError: The folder holds something else.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        # Compared as it is read back: tuples become lists.
        if read_json(folder / RECIPE) == json.loads(json.dumps(recipe)):
            return folder
        raise UserError(
            f"'{folder}' does not hold these {noun} ({RECIPE}). Fix: remove the folder."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f'.{folder.name}.', dir=folder.parent) as partial:
        # Not the temporary folder itself, which is removed at the end.
        new_folder = Path(partial, 'made')
        new_folder.mkdir()
        write(new_folder)
        (new_folder / RECIPE).write_text(json.dumps(recipe, indent=1))
        try:
            new_folder.rename(folder)
        except OSError:
            another_process_was_faster = (folder / RECIPE).is_file()
            if not another_process_was_faster:
                raise
    return folder
