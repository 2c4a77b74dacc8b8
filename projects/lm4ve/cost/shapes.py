"""The sizes of models that configs name by a checkpoint, so that no file of them is needed.

They are the fields of each release's ``config.json`` that decide shapes.
"""

from pathlib import Path
from typing import Any

from lm4ve.llm.checkpoint import open_checkpoint


def _llama(
    width: int, inner: int, heads: int, layers: int, **more: Any
) -> dict[str, Any]:
    """Return the configuration of a LLaMA by its sizes; ``more`` adds or replaces fields.

    Models of other types whose layers have these fields are described by it, too.
    """
    fields: dict[str, Any] = dict(
        model_type='llama',
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    return {**fields, **more}


def _opt(width: int, heads: int, layers: int, **more: Any) -> dict[str, Any]:
    """Return the configuration of an OPT by its sizes; ``more`` adds or replaces fields."""
    fields: dict[str, Any] = dict(
        model_type='opt',
        hidden_size=width,
        ffn_dim=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        word_embed_proj_dim=width,
    )
    return {**fields, **more}


_ROBERTA = dict(
    model_type='roberta',
    vocab_size=50265,
    max_position_embeddings=514,
    type_vocab_size=1,
    pad_token_id=1,
    layer_norm_eps=1e-5,
)
_7B = _llama(4096, 11008, 32, 32)
#: The last part of a checkpoint's name, in small letters -> fields of its
#: configuration.
SHAPES: dict[str, dict[str, Any]] = {
    'llama-7b': _7B,
    'llama-2-7b': _7B,
    'llama-3-8b': _llama(4096, 14336, 32, 32, num_key_value_heads=8),
    'llama-3.1-8b': _llama(4096, 14336, 32, 32, num_key_value_heads=8),
    'llama-3.2-1b': _llama(2048, 8192, 32, 16, num_key_value_heads=8),
    'mistral-7b': _llama(
        4096, 14336, 32, 32, num_key_value_heads=8, model_type='mistral'
    ),
    'qwen2.5-7b': _llama(
        3584, 18944, 28, 28, num_key_value_heads=4, model_type='qwen2'
    ),
    'openpangu-embedded-1b': _llama(
        1536, 6144, 12, 26, num_key_value_heads=6, model_type='PanguEmbedded', bias=True
    ),
    'smollm2-135m': _llama(576, 1536, 9, 30, num_key_value_heads=3),
    'opt-125m': _opt(768, 12, 12),
    'opt-350m': _opt(1024, 16, 24, word_embed_proj_dim=512, do_layer_norm_before=False),
    'opt-1.3b': _opt(2048, 32, 24),
    'opt-2.7b': _opt(2560, 32, 32),
    'opt-6.7b': _opt(4096, 32, 32),
    'all-minilm-l6-v2': _llama(384, 1536, 12, 6, model_type='bert'),
    'roberta-base': _ROBERTA,
    'clip-vit-base-patch32': dict(model_type='clip_vision_model'),
}


def shape_of(checkpoint: str) -> dict[str, Any]:
    """Return the fields that decide the sizes of a checkpoint's model.

    The configuration of a local checkpoint is read. Otherwise a model that
    :data:`SHAPES` lists needs no file, and of any other the configuration is read from
    where it lies; for a hub id this may download that one file.

    Args:
        checkpoint (str): See :func:`lm4ve.llm.sources.find_files`.

    Raises:
        CheckpointError: The model is unknown, and there is no configuration.
    """
    is_local = Path(checkpoint).expanduser().exists()
    name = _model_name(checkpoint)
    if name in SHAPES and not is_local:
        return dict(SHAPES[name])
    return dict(open_checkpoint(checkpoint).config)


def _model_name(checkpoint: str) -> str:
    """Return the name of a model: 'llama-7b' of 'owner/LLaMA-7B@revision'."""
    _, _, last = checkpoint.rstrip('/').rpartition('/')
    _, _, last = last.rpartition(':')  # 'package:...'
    name, _, _ = last.partition('@')
    return name.lower()
