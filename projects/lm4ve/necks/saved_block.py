"""The block that a folder names, with a language model that may be read for it.

A file may name any path or hub id. What is in its folder is read. What is elsewhere is
read where it is on this machine already, without a network, and taken only if its
fingerprint is the recorded one: who wrote the file has had the same weights. What is
there otherwise, or whether anything is, shows in no message.
"""

from pathlib import Path
from typing import Any

from lm4ve.errors import CheckpointError, UserError, brief, require
from lm4ve.llm.sources import FileSource, find_cached, find_files
from lm4ve.necks.folder_config import BLOCKS, CONFIG_FILE, FolderConfig, SavedBlock


def block_of(config: FolderConfig, folder: Path) -> SavedBlock:
    """Return the block that a folder names.

    Raises:
        UserError: It names none, or none of :data:`BLOCKS`.
    """
    block = config.block
    if block is None:
        raise UserError(
            f"The block of '{folder}' was given as a module. Fix: give block=."
        )
    if not block.is_known:
        raise UserError(
            f"'{folder / CONFIG_FILE}': block.type={brief(repr(block.type))} is none of "
            f'{", ".join(BLOCKS)}, and a file cannot name others. Fix: give block=.'
        )
    return block


class SavedLanguageModel:
    """The language model of a block that a folder names.

    Args:
        block (SavedBlock): The block.
        fingerprint (str, optional): The recorded fingerprint of its weights.
        folder (Path): The folder.
        download (bool): Whether a hub id may be downloaded.

    Attributes:
        name (str | None): What finds it from now on: a path, a hub id, or a package's
            name. None for a block without one.
        is_foreign (bool): Whether its files are of this machine, neither of the folder,
            nor of a package that lm4ve lists, nor downloaded by the caller's wish.

    Raises:
        CheckpointError: It is not on this machine.
    """

    def __init__(
        self, block: SavedBlock, fingerprint: str | None, folder: Path, download: bool
    ) -> None:
        self.block = block
        self.fingerprint = fingerprint
        self.folder = folder
        self.name = block.checkpoint
        self.is_foreign = False
        self._source: str | FileSource | None = None
        if self.name is None:
            return
        if self.name.startswith('package:'):
            self._source = self.name
            return
        try:
            self._locate(self.name, download)
        except (UserError, OSError, RuntimeError, ValueError):
            raise self._not_there() from None

    def _locate(self, name: str, download: bool) -> None:
        """Find the files, in the folder first.

        Raises:
            UserError, OSError, RuntimeError, ValueError: There are none, or the name is
                none of a file.
        """
        inside = self.folder / name
        is_below = not Path(name).is_absolute() and '..' not in Path(name).parts
        if is_below and inside.exists():
            # Files in a folder of the hub's cache are links out of it.
            is_link_outside = not inside.resolve().is_relative_to(self.folder.resolve())
            self.is_foreign = is_link_outside
            self.name = str(inside.absolute())
            self._source = self.name
            return
        source, _ = find_files(name)
        is_on_hub = source.folder is None
        if is_on_hub and download:
            self._source = name
            return
        self.is_foreign = True
        if is_on_hub:
            self._source = find_cached(name)
            require(self._source, 'The cache of the hub does not have it.')
        else:
            self.name = str(Path(name).expanduser().absolute())
            self._source = self.name

    def fields(self) -> dict[str, Any]:
        """Return the config of the block, as :func:`lm4ve.wrap` would get it."""
        fields = dict(type=self.block.type, **self.block.fields)
        if self.name is not None:
            fields['checkpoint'] = self.name
        return fields

    def build_block(self) -> Any:
        """Build the block.

        Raises:
            CheckpointError: Its language model cannot be read, or is not the recorded
                one.
        """
        try:
            built: Any = self.block.build(self._source)
        except (UserError, OSError):
            if self.is_foreign:
                raise self._not_there() from None
            raise
        if self._source is None:
            return built
        if built.source['fingerprint'] != self.fingerprint:
            raise self._not_there()
        return built

    def _not_there(self) -> CheckpointError:
        """Return the error for all that can be wrong with foreign files."""
        return CheckpointError(
            f"'{self.folder / CONFIG_FILE}' names the language model "
            f"'{brief(self.block.checkpoint)}', which is not on this machine, or is "
            'another one than it was. Fix: give block=, where it lies, or download=True '
            'for a hub id.'
        )
