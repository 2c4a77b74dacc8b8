"""Families that are refused on purpose, each with its reason."""

_REMOTE_CODE = (
    'it is the remote-code layout of early {} models; '
    'use a checkpoint with model_type "{}"'
)
_BY_REASON = {
    'it adds an alibi position bias to the attention scores': 'bloom mpt',
    "its layers take four streams at once and an embedding of each token's id, which image tokens "
    'do not have': 'gemma3n gemma3n_text',
    'its attention scores have terms made of relative positions, outside of the layer': (
        'deberta deberta-v2 mpnet xlnet umt5'
    ),
    'its layers are recurrent and have no softmax attention': (
        'mamba mamba2 falcon_mamba rwkv xlstm'
    ),
    'its layers mix attention with state-space branches': (
        'falcon_h1 bamba jamba zamba zamba2 nemotron_h'
    ),
    'its keys and values are made in two steps with a norm between (latent attention)': (
        'deepseek_v2 deepseek_v3 minicpm3 longcat_flash'
    ),
    'its attention is defined by blocks and windows of positions': (
        'big_bird longformer reformer longt5'
    ),
    _REMOTE_CODE.format('Phi', 'phi'): 'mixformer-sequential phi-msft',
    _REMOTE_CODE.format('Falcon', 'falcon'): 'RefinedWeb RefinedWebModel',
}
#: ``model_type`` -> the reason.
REFUSED = {
    kind: reason for reason, kinds in _BY_REASON.items() for kind in kinds.split()
}
