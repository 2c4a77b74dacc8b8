"""Build a model's configuration from fields that a stranger may have written.

A ``config.json`` can hold more than sizes: names of code to import, of kernels to
download, of weight files elsewhere, and of another repository whose configuration
completes it. Blocks and encoders build their configurations here, where such fields are
dropped and where the hub is out of reach: all that a model needs stands in its own
folder.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from transformers import AutoConfig, PretrainedConfig

from lm4ve.errors import CheckpointError, UserError
from lm4ve.llm.pangu import PANGU_EMBEDDED, PanguEmbeddedConfig

#: ``model_type`` of families that ``transformers`` lacks, and whose layers are those of
#: one that it has -> the class of their configurations, a subclass of that one's.
FOREIGN_FAMILIES = {PANGU_EMBEDDED: PanguEmbeddedConfig}
#: Fields that name code, kernels, weight files or replaced modules, and no property of
#: a model.
_NOT_OF_A_MODEL = {
    'auto_map',
    'fusion_config',
    'kernel_config',
    'transformers_weights',
    'use_kernels',
}


@contextmanager
def offline(origin: str) -> Iterator[None]:
    """Put the hub out of reach within this context: nothing is requested from it.

    Args:
        origin (str): The file whose fields are read, for the error.

    Raises:
        CheckpointError: Code within the context sent a request.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True  # the library looks at it before each request
    try:
        yield
    except OfflineModeIsEnabled as e:
        raise CheckpointError(
            f'{origin} names another repository, and nothing is fetched that only a '
            "file asks for. Fix: put that repository's configuration into the file, as "
            "'backbone_config' for 'backbone'."
        ) from e
    finally:
        constants.HF_HUB_OFFLINE = before


def without_code(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the fields that are no property of a model.

    They name code, kernels or files; see ``_NOT_OF_A_MODEL``. Nested configurations lose
    them, too.

    Args:
        fields (Mapping): The content of a ``config.json``.
    """
    kept = {}
    for name, value in fields.items():
        if name in _NOT_OF_A_MODEL or '_implementation' in name:
            continue
        kept[name] = without_code(value) if isinstance(value, dict) else value
    return kept


def build_foreign_config(fields: Mapping[str, Any], origin: str) -> PretrainedConfig:
    """Build a configuration of ``transformers`` without importing or downloading anything.

    Fields that name code are dropped (:func:`without_code`), and the hub is out of reach
    meanwhile (:func:`offline`).

    Args:
        fields (Mapping): The content of a ``config.json``, with ``model_type``.
        origin (str): Where the fields were read, for the error.

    Raises:
        CheckpointError: The fields are not those of a model, or need another
            repository.
    """
    model_type: Any = fields.get('model_type')
    try:
        with offline(origin):
            # transformers writes infinity, which JSON does not have, as a dict.
            plain = PretrainedConfig._decode_special_floats(without_code(fields))
            plain.pop('model_type', None)
            config: PretrainedConfig
            if model_type in FOREIGN_FAMILIES:
                config = FOREIGN_FAMILIES[model_type](**plain)
            else:
                config = AutoConfig.for_model(model_type, **plain)
    except UserError:
        raise
    except Exception as e:  # any class of error, and the file is not named
        reason = ' '.join(str(e).split())
        raise CheckpointError(
            f"{origin} is not that of a valid '{model_type}' model ({type(e).__name__}: {reason})."
        ) from e
    return config
