"""The configuration of openPangu-Embedded, which ``transformers`` does not have.

openPangu is released with code of its own, which is never run here. Its layers are
LLaMA's with biases of all four projections of the attention, so that the library's
LLaMA runs them once the configuration is read. ``AutoConfig`` does not learn the name:
a program that loads openPangu by the released code goes on as without lm4ve.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig

#: The ``model_type`` of the released ``config.json``.
PANGU_EMBEDDED = 'PanguEmbedded'


@strict
class PanguEmbeddedConfig(LlamaConfig):
    """LLaMA's configuration, where the attention has biases unless ``bias`` is False.

    The defaults are those of the released ``configuration_openpangu_dense.py``, where
    they concern layers; the released files have all of these fields.
    """

    model_type = PANGU_EMBEDDED

    hidden_size: int = 4096
    intermediate_size: int = 12800
    num_hidden_layers: int = 34
    num_key_value_heads: int | None = 8
    rms_norm_eps: float = 1e-5
    attention_bias: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Take ``bias``, the release's name of ``attention_bias``, and complete the rest."""
        self.attention_bias = kwargs.pop('bias', self.attention_bias)
        # Where `rope_theta` is missing, LLaMA's base would be assumed.
        if self.rope_parameters is None:
            kwargs.setdefault('rope_theta', 16000000.0)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
