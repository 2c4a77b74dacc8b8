"""Families that are refused on purpose, each with its reason."""

_ALIBI = 'it adds an alibi position bias to the attention scores'
_FOUR_STREAMS = (
    "its layers take four streams at once and an embedding of each token's id, "
    'which image tokens do not have'
)
_RELATIVE_SCORES = (
    'its attention scores have terms made of relative positions, outside of the layer'
)
_RECURRENT = 'its layers are recurrent and have no softmax attention'
_STATE_SPACE = 'its layers mix attention with state-space branches'
_BLOCKS_OF_POSITIONS = 'its attention is defined by blocks and windows of positions'
_OLD_PHI = (
    'it is the remote-code layout of early Phi models; use a checkpoint with '
    'model_type "phi"'
)
_OLD_FALCON = (
    'it is the remote-code layout of early Falcon models; use a checkpoint with '
    'model_type "falcon"'
)

#: ``model_type`` -> the reason.
REFUSED = {
    'bloom': _ALIBI,
    'mpt': _ALIBI,
    'gemma3n': _FOUR_STREAMS,
    'gemma3n_text': _FOUR_STREAMS,
    'deberta': _RELATIVE_SCORES,
    'deberta-v2': _RELATIVE_SCORES,
    'mpnet': _RELATIVE_SCORES,
    'xlnet': _RELATIVE_SCORES,
    'umt5': _RELATIVE_SCORES,
    'mamba': _RECURRENT,
    'mamba2': _RECURRENT,
    'falcon_mamba': _RECURRENT,
    'rwkv': _RECURRENT,
    'xlstm': _RECURRENT,
    'falcon_h1': _STATE_SPACE,
    'bamba': _STATE_SPACE,
    'jamba': _STATE_SPACE,
    'zamba': _STATE_SPACE,
    'zamba2': _STATE_SPACE,
    'nemotron_h': _STATE_SPACE,
    'big_bird': _BLOCKS_OF_POSITIONS,
    'longformer': _BLOCKS_OF_POSITIONS,
    'reformer': _BLOCKS_OF_POSITIONS,
    'longt5': _BLOCKS_OF_POSITIONS,
    'mixformer-sequential': _OLD_PHI,
    'phi-msft': _OLD_PHI,
    'RefinedWeb': _OLD_FALCON,
    'RefinedWebModel': _OLD_FALCON,
}
