"""Names of configs that were removed, since each is another config and one option.

They were controls: random weights, or the paper's MLP, in the block's place. Those of the
paper's tables stay files. A name of this table is read as config and option, so that the
commands of scripts go on.
"""

from typing import Any

#: Random weights, frozen: the paper lacks this control.
_RANDOM = {'model.neck.block.pretrained': False}
#: Random weights, trained: the paper's "random".
_RANDOM_TRAINED = {
    'model.neck.block.pretrained': False,
    'model.neck.block.trainable': 'all',
    'model.neck.block.dtype': 'float32',
}


def _mlp(width: int) -> dict[str, Any]:
    """Return the option that puts the paper's MLP in the block's place."""
    block = dict(_delete_=True, type='MLPBlock', embed_dims=width)
    return {'model.neck.block': block}


_MLP_384 = _mlp(384)
_MLP_4096 = _mlp(4096)

#: Removed name -> the config, and the option by dotted field.
REMOVED_CONTROLS: dict[str, tuple[str, dict[str, Any]]] = {
    'vit-demo_mlp_digits': ('vit-demo_minilm_digits', _MLP_384),
    'vit-demo_mlp_textured-digits': ('vit-demo_minilm_textured-digits', _MLP_384),
    'vit-demo_randinit-frozen_digits': ('vit-demo_minilm_digits', _RANDOM),
    'vit-demo_randinit-frozen_textured-digits': (
        'vit-demo_minilm_textured-digits',
        _RANDOM,
    ),
    'vit-s_llama-randinit-frozen_in1k': ('vit-s_llama_in1k', _RANDOM),
    'mmtransformer_llama-randinit-frozen_argoverse1': (
        'mmtransformer_llama_argoverse1',
        _RANDOM,
    ),
    'vectornet_llama-randinit-frozen_argoverse1': (
        'vectornet_llama_argoverse1',
        _RANDOM,
    ),
    'vectornet_llama-randinit-trained_argoverse1': (
        'vectornet_llama_argoverse1',
        _RANDOM_TRAINED,
    ),
    'vectornet_mlp_argoverse1': ('vectornet_llama_argoverse1', _MLP_4096),
    'pointbert-demo_mlp_primitives': ('pointbert-demo_minilm_primitives', _MLP_384),
    'pointbert-demo_randinit-frozen_primitives': (
        'pointbert-demo_minilm_primitives',
        _RANDOM,
    ),
    'pointbert_llama-randinit-frozen_scanobjectnn-bg': (
        'pointbert_llama_scanobjectnn-bg',
        _RANDOM,
    ),
    'pointbert_llama-randinit-frozen_scanobjectnn-hardest': (
        'pointbert_llama_scanobjectnn-hardest',
        _RANDOM,
    ),
    'pointbert_llama-randinit-frozen_scanobjectnn-obj': (
        'pointbert_llama_scanobjectnn-obj',
        _RANDOM,
    ),
    'sqa3d-demo_mlp_rooms': ('sqa3d-demo_minilm_rooms', _MLP_384),
    'sqa3d-demo_randinit-frozen_rooms': ('sqa3d-demo_minilm_rooms', _RANDOM),
    'sqa3d_llama-randinit-frozen': ('sqa3d_llama', _RANDOM),
    'videomae-s_llama-randinit-frozen_ssv2': ('videomae-s_llama_ssv2', _RANDOM),
    'meter-demo_mlp_digit-scenes': ('meter-demo_minilm_digit-scenes', _MLP_384),
    'meter-demo_mlp_easy-vqa': ('meter-demo_minilm_easy-vqa', _MLP_384),
    'meter-demo_randinit-frozen_digit-scenes': (
        'meter-demo_minilm_digit-scenes',
        _RANDOM,
    ),
    'meter-demo_randinit-frozen_easy-vqa': ('meter-demo_minilm_easy-vqa', _RANDOM),
    'meter_llama-randinit-frozen_coco-retrieval': (
        'meter_llama_coco-retrieval',
        _RANDOM,
    ),
    'meter_llama-randinit-frozen_flickr30k': ('meter_llama_flickr30k', _RANDOM),
    'meter_llama-randinit-frozen_vqav2': ('meter_llama_vqav2', _RANDOM),
    'meter_llama-randinit-trained_coco-retrieval': (
        'meter_llama_coco-retrieval',
        _RANDOM_TRAINED,
    ),
    'meter_llama-randinit-trained_vqav2': ('meter_llama_vqav2', _RANDOM_TRAINED),
    'meter_mlp_coco-retrieval': ('meter_llama_coco-retrieval', _MLP_4096),
    'meter_mlp_vqav2': ('meter_llama_vqav2', _MLP_4096),
}
