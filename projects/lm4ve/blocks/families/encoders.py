"""Encoders: bidirectional already, most with norms after the residual sums."""

from dataclasses import replace

from transformers import PretrainedConfig

from lm4ve.blocks.families.spec import Family, LayerSpec, rows_concatenated

_BERT = LayerSpec(
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
_DISTILBERT = LayerSpec(
    attention='attention',
    qkv=('q_lin', 'k_lin', 'v_lin'),
    out='out_lin',
    norms={
        'attention_post_norm': 'sa_layer_norm',
        'mlp_post_norm': 'output_layer_norm',
    },
    mlp=('ffn',),
    final_norm='',
)
_MODERNBERT = LayerSpec(
    attention='attn',
    qkv=('Wqkv',),
    split=rows_concatenated,
    out='Wo',
    norms={
        'attention_norm': 'attn_norm',
        'mlp_norm': 'mlp_norm',
    },
    final_norm='final_norm',
)
# T5 has no rotary embedding but a bias of the scores by relative position, which stands
# in its first layer alone and is left out, as rotary embedding is.
_T5 = LayerSpec(
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


def _albert_place(config: PretrainedConfig, index: int) -> str:
    """Return the path of a layer's weights, which all layers of its group share.

    Layers are distributed evenly over the groups, in order.
    """
    layers_in_group = config.num_hidden_layers / config.num_hidden_groups
    group = int(index / layers_in_group)
    return f'albert_layer_groups.{group}.albert_layers.0'


def _albert_refuse(config: PretrainedConfig, index: int) -> str:
    """Return the reason why a layer cannot be used; '' if it can (``LayerSpec.refuse``).

    With ``inner_group_num`` above 1 each entry of the model's list of layers runs
    several layers in a row, and none of them has an index. That concerns every layer,
    so ``index`` is not read.
    """
    count = config.inner_group_num
    if count == 1:
        return ''
    return f'inner_group_num={count} makes several layers one, expected 1'


_ALBERT = LayerSpec(
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
    refuse=_albert_refuse,
)

ENCODERS: dict[str, Family] = {
    'bert': _BERT,
    'roberta': _BERT,
    'xlm-roberta': _BERT,
    'camembert': _BERT,
    'electra': _BERT,
    'ernie': _BERT,
    'data2vec-text': _BERT,
    'bert-generation': _BERT,
    'rembert': _BERT,
    'roc_bert': _BERT,
    'layoutlm': _BERT,
    'distilbert': _DISTILBERT,
    'albert': _ALBERT,
    # Norms before the branches.
    'roberta-prelayernorm': replace(
        _BERT,
        norms={
            'attention_norm': 'attention.LayerNorm',
            'mlp_norm': 'intermediate.LayerNorm',
        },
        final_norm='LayerNorm',
    ),
    'megatron-bert': replace(
        _BERT,
        norms={
            'attention_norm': 'attention.ln',
            'mlp_norm': 'ln',
        },
        final_norm='encoder.ln',
    ),
    'modernbert': _MODERNBERT,
    't5': _T5,
    'mt5': _T5,
}
