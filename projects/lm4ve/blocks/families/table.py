"""The families of language models: how their layers run, or why they cannot; one row each.

A row has a spec where papers, configs and guides use the family, and where its own layer
cannot run alone. All other families run by the library's own layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from lm4ve.blocks.families.spec import LayerSpec
from lm4ve.blocks.masks import Window

#: A spec, or a function of the config where the layout depends on it.
Spec = LayerSpec | Callable[[PretrainedConfig], LayerSpec]


@dataclass(frozen=True)
class Family:
    """A row of the table.

    Attributes:
        reason (str): Why it has a spec, runs by its own layer, or is refused.
        spec (LayerSpec | callable, optional): What the parts of its layers are called.
            None: the library's own layer runs.
        window (callable, optional): ``(config) -> Window`` of a layer that slides, as
            the library's model masks it. None: no layer does, whatever fields the
            config has.
        refuse (callable, optional): ``(config, index) -> str``: the reason why a layer
            cannot be had, '' if it can.
        is_refused (bool): No layer can be had.
    """

    reason: str
    spec: Spec | None = None
    window: Callable[[PretrainedConfig], Window] | None = None
    refuse: Callable[[PretrainedConfig, int], str] | None = None
    is_refused: bool = False


# ------------------------------------------------------------------------------ windows
def _causal(config: PretrainedConfig) -> Window:
    """Return a window of earlier tokens."""
    return Window(config.sliding_window, chunked=False, both_ways=False)


def _both_ways(config: PretrainedConfig) -> Window:
    """Return a window of earlier and later tokens, the ones at its width included."""
    return Window(config.sliding_window + 1, chunked=False, both_ways=True)


def _gemma3_window(config: PretrainedConfig) -> Window:
    """Return Gemma 3's window, of later tokens too in its embedding models."""
    both_ways = bool(config.use_bidirectional_attention)
    return Window(config.sliding_window, chunked=False, both_ways=both_ways)


def _gemma4_window(config: PretrainedConfig) -> Window:
    """Return Gemma 4's window, of later tokens too where the config says so."""
    if getattr(config, 'is_causal', True):
        return _causal(config)
    return _both_ways(config)


# -------------------------------------------------------------------------------- specs
LLAMA = LayerSpec()
#: LLaMA with a norm over the channels of each head's queries and keys.
QWEN3 = LayerSpec(qk_norm=True)
#: LLaMA with a norm before each branch and one on its output, and norms of each head.
GEMMA4 = LayerSpec(
    qk_norm=True,
    v_norm='v_norm',
    norms={
        'attention_norm': 'input_layernorm',
        'attention_out_norm': 'post_attention_layernorm',
        'mlp_norm': 'pre_feedforward_layernorm',
        'mlp_out_norm': 'post_feedforward_layernorm',
    },
    reads=('is_causal',),
)
GPT_NEO = LayerSpec(
    attention='attn.attention',
    out='out_proj',
    norms={
        'attention_norm': 'ln_1',
        'mlp_norm': 'ln_2',
    },
    scale=1.0,
    final_norm='ln_f',
)
OPT = LayerSpec(
    out='out_proj',
    norms={
        'attention_norm': 'self_attn_layer_norm',
        'mlp_norm': 'final_layer_norm',
    },
    mlp=('fc1', 'activation_fn', 'fc2'),
    final_norm='decoder.final_layer_norm',
)
BERT = LayerSpec(
    attention='attention',
    qkv=('self.query', 'self.key', 'self.value'),
    out='output.dense',
    norms={
        'attention_post_norm': 'attention.output.LayerNorm',
        'mlp_post_norm': 'output.LayerNorm',
    },
    mlp=('intermediate.dense', 'intermediate.intermediate_act_fn', 'output.dense'),
    final_norm='',
)
# T5 has no rotary embedding but a bias of the scores by relative position, which stands
# in its first layer alone and is left out, as rotary embedding is.
T5 = LayerSpec(
    attention='layer.0.SelfAttention',
    qkv=('q', 'k', 'v'),
    out='o',
    norms={
        'attention_norm': 'layer.0.layer_norm',
        'mlp_norm': 'layer.1.layer_norm',
    },
    mlp=('layer.1.DenseReluDense',),
    final_norm='encoder.final_layer_norm',
)


def _opt(config: PretrainedConfig) -> LayerSpec:
    """Return the spec of OPT, with norms before the branches or after the residual sums.

    opt-350m alone has the latter, and no final norm.
    """
    spec = OPT
    if not config.do_layer_norm_before:
        norms = {
            'attention_post_norm': 'self_attn_layer_norm',
            'mlp_post_norm': 'final_layer_norm',
        }
        spec = replace(OPT, norms=norms, final_norm='')
    if getattr(config, '_remove_final_layer_norm', False):
        spec = replace(spec, final_norm='')
    return spec


def _albert_place(config: PretrainedConfig, index: int) -> str:
    """Return the path of a layer's weights, which all layers of its group share.

    Layers are distributed evenly over the groups, in order.
    """
    layers_in_group = config.num_hidden_layers / config.num_hidden_groups
    group = int(index / layers_in_group)
    return f'albert_layer_groups.{group}.albert_layers.0'


ALBERT = LayerSpec(
    attention='attention',
    qkv=('query', 'key', 'value'),
    out='dense',
    norms={
        'attention_post_norm': 'attention.LayerNorm',
        'mlp_post_norm': 'full_layer_layer_norm',
    },
    mlp=('ffn', 'activation', 'ffn_output'),
    final_norm='',
    layers='encoder.albert_layer_groups.0.albert_layers',
    place=_albert_place,
)


# ------------------------------------------------------------------- refusals of layers
def _albert_refuse(config: PretrainedConfig, index: int) -> str:
    """Return the reason why no layer can be used; '' if each can.

    With ``inner_group_num`` above 1 each entry of the model's list of layers runs
    several layers in a row, and none of them has an index.
    """
    count = config.inner_group_num
    if count == 1:
        return ''
    return f'inner_group_num={count} makes several layers one, expected 1'


def _falcon_refuse(config: PretrainedConfig, index: int) -> str:
    """Return the reason why no layer can be used; '' if each can."""
    if config.alibi:
        return 'alibi=True adds a position bias to the attention scores'
    return ''


def _gemma4_refuse(config: PretrainedConfig, index: int) -> str:
    """Return the reason why a layer of Gemma 4 cannot be used; '' if it can."""
    if config.hidden_size_per_layer_input:
        return (
            "it takes an embedding of each token's id (hidden_size_per_layer_input), which image "
            'tokens do not have; choose a Gemma 4 without it'
        )
    if config.enable_moe_block:
        return 'its experts read the residual stream beside a dense MLP, which no form here has'
    if config.kv_sharing_modes[index] == 'reuse':
        return 'it has no keys and values of its own (num_kv_shared_layers)'
    return ''


# ---------------------------------------------------------------------------- the table
_USED = 'fast layer: papers, configs and guides use it'
_TAKES_MORE = 'fast layer: its own one takes what image tokens do not have'
_MASKS = 'fast layer: its own one masks tokens itself'
_SHARES = 'fast layer: its model has no list of its layers'
_OWN = 'own layer, with fused attention'
_EAGER = 'own layer, with eager attention: transformers has no fused one for it'
_ALIBI = 'refused: it adds an alibi position bias to the attention scores'
_FOUR_STREAMS = (
    "refused: its layers take four streams at once and an embedding of each token's id, "
    'which image tokens do not have'
)
_RELATIVE_SCORES = (
    'refused: its attention scores have terms made of relative positions, outside of '
    'the layer'
)
_RECURRENT = 'refused: its layers are recurrent and have no softmax attention'
_STATE_SPACE = 'refused: its layers mix attention with state-space branches'
_BLOCKS_OF_POSITIONS = (
    'refused: its attention is defined by blocks and windows of positions'
)
_OLD_PHI = (
    'refused: it is the remote-code layout of early Phi models; use a checkpoint with '
    'model_type "phi"'
)
_OLD_FALCON = (
    'refused: it is the remote-code layout of early Falcon models; use a checkpoint with '
    'model_type "falcon"'
)

#: ``model_type`` of a config -> its row. A family that is not here is tried when a block
#: is built (``blocks/host_family.py``).
FAMILIES: dict[str, Family] = {
    'llama': Family(_USED, LLAMA),
    'mistral': Family(_USED, LLAMA, _causal),
    'qwen2': Family(_USED, LLAMA, _causal),
    'qwen3': Family(_USED, QWEN3, _causal),
    'PanguEmbedded': Family(_USED, LLAMA),
    'opt': Family(_USED, _opt),
    'bert': Family(_USED, BERT),
    'roberta': Family(_USED, BERT),
    'xlm-roberta': Family(_USED, BERT),
    'camembert': Family(_USED, BERT),
    'gemma4_text': Family(_TAKES_MORE, GEMMA4, _gemma4_window, _gemma4_refuse),
    't5': Family(_TAKES_MORE, T5),
    'mt5': Family(_TAKES_MORE, T5),
    'gpt_neo': Family(_MASKS, GPT_NEO),
    'albert': Family(_SHARES, ALBERT, refuse=_albert_refuse),
    'falcon': Family(_OWN, refuse=_falcon_refuse),
    'gemma3_text': Family(_OWN, window=_gemma3_window),
    'modernbert': Family(_OWN, window=_both_ways),
    'ultrabert': Family(_OWN, window=_both_ways),
}


#: Without windows, or with windows that the type of a layer says (llama4).
_PLAIN = (
    'apertus',
    'apertus1p5_text',
    'arcee',
    'aria_text',
    'axk1',
    'axk2',
    'bailing_hybrid',
    'bert-generation',
    'biogpt',
    'bitnet',
    'codegen',
    'cohere',
    'ctrl',
    'data2vec-text',
    'deepseek_v2',
    'deepseek_v3',
    'deepseek_v32',
    'diffllama',
    'distilbert',
    'electra',
    'ernie',
    'ernie4_5',
    'ernie4_5_moe',
    'esm',
    'esmc',
    'eurobert',
    'exaone',
    'flex_olmo',
    'gemma',
    'glm',
    'glm4',
    'glm4_moe',
    'glm4_moe_lite',
    'gpt2',
    'gpt_bigcode',
    'gpt_neox',
    'gptj',
    'granite',
    'granitemoe',
    'granitemoehybrid',
    'granitemoeshared',
    'gte',
    'helium',
    'hunyuan_v1_dense',
    'hunyuan_v1_moe',
    'hy_v3',
    'hyperclovax',
    'internlm3',
    'iquestcoder',
    'jais2',
    'jetmoe',
    'jina_embeddings_v3',
    'kimi_linear',
    'layoutlm',
    'lfm2',
    'lfm2_moe',
    'llama4_text',
    'minicpm3',
    'minimax_m2',
    'minimax_m3_vl_text',
    'mobilebert',
    'nanochat',
    'nemotron',
    'nomic_bert',
    'olmo',
    'olmo2',
    'olmo_hybrid',
    'olmoe',
    'persimmon',
    'phi',
    'qwen3_5_moe_text',
    'qwen3_5_text',
    'qwen3_next',
    'qwen3_vl_text',
    'roberta-prelayernorm',
    'roc_bert',
    'sarvam_mla',
    'sarvam_moe',
    'seed_oss',
    'solar_open',
    'stablelm',
    'xlm-roberta-xl',
    'youtu',
)
#: With windows of earlier tokens.
_SLIDING = (
    'afmoe',
    'cohere2',
    'cohere2_moe',
    'cohere_compass_text',
    'cwm',
    'dots1',
    'dots3_note_text',
    'exaone4',
    'exaone_moe',
    'kolibri1',
    'laguna',
    'lara_mini',
    'lfm3',
    'mellum',
    'minimax',
    'ministral',
    'ministral3',
    'mixtral',
    'modernbert-decoder',
    'olmo3',
    'phi3',
    'phi4_multimodal',
    'phimoe',
    'qwen2_5_vl_text',
    'qwen2_moe',
    'qwen2_vl_text',
    'qwen3_moe',
    'smollm3',
    'starcoder2',
)
#: Without windows.
_EAGER_PLAIN = (
    'git',
    'gpt_neox_japanese',
    'megatron-bert',
    'rembert',
    'tapas',
    'xglm',
)
#: With windows of earlier tokens.
_EAGER_SLIDING = (
    'flint',
    'gemma2',
    'gpt_oss',
    'granite_swa',
    'granitemoe_swa',
    'mimo_v2_flash',
    'vaultgemma',
)

FAMILIES.update(dict.fromkeys(_PLAIN, Family(_OWN)))
FAMILIES.update(dict.fromkeys(_SLIDING, Family(_OWN, window=_causal)))
FAMILIES.update(dict.fromkeys(_EAGER_PLAIN, Family(_EAGER)))
FAMILIES.update(dict.fromkeys(_EAGER_SLIDING, Family(_EAGER, window=_causal)))

_REFUSED = {
    _ALIBI: (
        'bloom',
        'mpt',
    ),
    _FOUR_STREAMS: (
        'gemma3n',
        'gemma3n_text',
    ),
    _RELATIVE_SCORES: (
        'deberta',
        'deberta-v2',
        'mpnet',
        'xlnet',
        'umt5',
    ),
    _RECURRENT: (
        'mamba',
        'mamba2',
        'falcon_mamba',
        'rwkv',
        'xlstm',
    ),
    _STATE_SPACE: (
        'falcon_h1',
        'bamba',
        'jamba',
        'zamba',
        'zamba2',
        'nemotron_h',
    ),
    _BLOCKS_OF_POSITIONS: (
        'big_bird',
        'longformer',
        'reformer',
        'longt5',
    ),
    _OLD_PHI: (
        'mixformer-sequential',
        'phi-msft',
    ),
    _OLD_FALCON: (
        'RefinedWeb',
        'RefinedWebModel',
    ),
}
for _reason, _kinds in _REFUSED.items():
    FAMILIES.update(dict.fromkeys(_kinds, Family(_reason, is_refused=True)))
