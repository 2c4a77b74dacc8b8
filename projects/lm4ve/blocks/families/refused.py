"""Families that are refused on purpose, each with its reason."""

_REMOTE_CODE = (
    'it is the remote-code layout of early {} models; use a checkpoint with model_type "{}"'
)
_ALIBI = 'it adds an alibi position bias to the attention scores'
_RELATIVE = 'its attention scores have terms made of relative positions, outside of the layer'
_RECURRENT = 'its layers are recurrent and have no softmax attention'
_LATENT = 'its keys and values are made in two steps with a norm between (latent attention)'
_ALTUP = (
    "its layers take four streams at once and an embedding of each token's id, which image tokens "
    'do not have'
)
_SPARSE = 'its attention is defined by blocks and windows of positions'
_MIXED = 'its layers mix attention with state-space branches'

#: ``model_type`` -> the reason.
REFUSED: dict[str, str] = {
    **dict.fromkeys(('bloom', 'mpt'), _ALIBI),
    **dict.fromkeys(('gemma3n', 'gemma3n_text'), _ALTUP),
    **dict.fromkeys(('deberta', 'deberta-v2', 'mpnet', 'xlnet', 'umt5'), _RELATIVE),
    **dict.fromkeys(('mamba', 'mamba2', 'falcon_mamba', 'rwkv', 'xlstm'), _RECURRENT),
    **dict.fromkeys(('falcon_h1', 'bamba', 'jamba', 'zamba', 'zamba2', 'nemotron_h'), _MIXED),
    **dict.fromkeys(('deepseek_v2', 'deepseek_v3', 'minicpm3', 'longcat_flash'), _LATENT),
    **dict.fromkeys(('big_bird', 'longformer', 'reformer', 'longt5'), _SPARSE),
    **dict.fromkeys(('mixformer-sequential', 'phi-msft'), _REMOTE_CODE.format('Phi', 'phi')),
    **dict.fromkeys(('RefinedWeb', 'RefinedWebModel'), _REMOTE_CODE.format('Falcon', 'falcon')),
}
