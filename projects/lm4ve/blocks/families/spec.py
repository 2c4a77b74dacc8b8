"""The spec of a family's layers: which part of its layer is what.

The parts of a layer are modules of ``transformers``; a spec only names them, so that
one forward pass (``layer.py``) serves every family that has one. A layer has two
branches, attention and MLP, and each has three optional norms: before the branch, on the
branch's output, and after the residual sum.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import PretrainedConfig

#: The norms of a layer: before a branch, on its output, and after the residual sum.
NORMS = (
    'attention_norm',
    'attention_out_norm',
    'attention_post_norm',
    'mlp_norm',
    'mlp_out_norm',
    'mlp_post_norm',
)
#: Fields of a config that few families read. Of others a config may have them, without
#: an effect.
RARE_FIELDS = ('clip_qkv', 'is_causal', 'layer_rope_theta')


def _llama_norms() -> dict[str, str]:
    """Return the names of LLaMA's norms, which many families share."""
    return {
        'attention_norm': 'input_layernorm',
        'mlp_norm': 'post_attention_layernorm',
    }


@dataclass(frozen=True)
class LayerSpec:
    """Names the parts of a ``transformers`` decoder or encoder layer.

    Attributes:
        attention (str): The submodule that holds the projections.
        qkv (tuple[str, str, str]): The projections to queries, keys and values in it.
            Where that to values is None, values are keys (gemma4).
        out (str): Output projection in ``attention``.
        qk_norm (bool): Norms over each head's channels of queries and keys, which are
            called 'q_norm' and 'k_norm' in ``attention``.
        v_norm (str): A norm of each head's values.
        norms (dict[str, str]): Maps each of :data:`NORMS` that the layer has to its
            name there.
        mlp (tuple[str, ...]): Modules that make up the MLP, in order.
        scale (float, optional): Factor of the scores, where the attention has no
            attribute ``scaling`` and the factor is not ``head_dim ** -0.5``.
        reads (tuple[str, ...]): The fields of :data:`RARE_FIELDS` that the family
            reads.
        final_norm (str): The model's norm after the last layer; '' for none.
        layers (str): The model's list of layers, where it is not the first list.
        place (callable, optional): ``(config, index) -> str``: the last part of the
            prefix of a layer's tensors, where it is not the index.
    """

    attention: str = 'self_attn'
    qkv: tuple[str, str, str] = ('q_proj', 'k_proj', 'v_proj')
    out: str = 'o_proj'
    qk_norm: bool = False
    v_norm: str = ''
    norms: dict[str, str] = field(default_factory=_llama_norms)
    mlp: tuple[str, ...] = ('mlp',)
    scale: float | None = None
    reads: tuple[str, ...] = ()
    final_norm: str = 'norm'
    layers: str = ''
    place: Callable[[PretrainedConfig, int], str] | None = None
