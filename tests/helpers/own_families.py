"""Tiny configs of families that never had a spec: ``transformers``' own layers run them.

Windows are shorter than the tests' sequences, and the widths of heads do not follow from
other fields where the family lets them differ.
"""

SIZES = dict(
    vocab_size=32,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
GQA = dict(SIZES, num_key_value_heads=2)
_MOE = dict(
    GQA,
    moe_intermediate_size=24,
    num_experts_per_tok=2,
    num_experts=4,
    num_local_experts=4,
    n_routed_experts=4,
    moe_num_experts=4,
)
#: Experts in the second layer only, chosen within groups.
_GROUPED = dict(_MOE, n_group=1, topk_group=1, first_k_dense_replace=1)
#: Keys and values made in two steps.
_LATENT = dict(
    _GROUPED,
    num_key_value_heads=4,
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=12,
)
_SLIDING = dict(
    layer_types=['sliding_attention', 'full_attention'],
    sliding_window=3,
)
_VISION = dict(
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=8,
    patch_size=4,
)
_HYBRID = dict(layer_types=['linear_attention', 'full_attention'])

_FIELDS = {
    'afmoe': dict(_MOE, head_dim=16, num_dense_layers=1, **_SLIDING),
    'aria_text': dict(_MOE),
    'axk1': dict(_LATENT),
    'axk2': dict(_LATENT),
    'bailing_hybrid': dict(_LATENT, **_HYBRID),
    'bitnet': dict(GQA),
    'cohere2_moe': dict(_MOE, head_dim=16, **_SLIDING),
    'cohere_compass_text': dict(
        GQA,
        **_SLIDING,
        rope_parameters=dict.fromkeys(
            _SLIDING['layer_types'], dict(rope_type='default', rope_theta=1e4)
        ),
    ),
    'ctrl': dict(SIZES, dff=48),
    'deepseek_v2': dict(_LATENT, n_shared_experts=1),
    'deepseek_v3': dict(_LATENT, n_shared_experts=1),
    'deepseek_v32': dict(_LATENT),
    'diffllama': dict(GQA),
    'dots1': dict(_GROUPED, head_dim=16, n_shared_experts=1, **_SLIDING),
    'dots3_note_text': dict(_LATENT),
    'ernie4_5_moe': dict(
        _MOE, moe_layer_start_index=1, moe_k=2, moe_num_shared_experts=1
    ),
    'esm': dict(SIZES, position_embedding_type='rotary'),
    'esmc': dict(SIZES),
    'exaone': dict(GQA),
    'exaone_moe': dict(_GROUPED, head_dim=16, is_moe_layer=[False, True], **_SLIDING),
    'flex_olmo': dict(_MOE),
    'flint': dict(_MOE),
    'git': dict(
        SIZES,
        vision_config=_VISION,
    ),
    'glm4_moe_lite': dict(_LATENT),
    'gpt_neox_japanese': dict(SIZES),
    'granitemoe': dict(_MOE, residual_multiplier=0.22, attention_multiplier=0.1),
    'granitemoe_swa': dict(_MOE, **_SLIDING),
    'granitemoehybrid': dict(
        _MOE,
        layer_types=['mamba', 'attention'],
        mamba_n_heads=4,
        shared_intermediate_size=24,
    ),
    'granitemoeshared': dict(_MOE, shared_intermediate_size=24),
    'gte': dict(SIZES),
    'hunyuan_v1_moe': dict(_MOE, head_dim=16, moe_topk=[2, 2]),
    'hy_v3': dict(_MOE, head_dim=16),
    'hyperclovax': dict(GQA, head_dim=16),
    'jetmoe': dict(_MOE, kv_channels=16),
    'jina_embeddings_v3': dict(SIZES),
    'kimi_linear': dict(_LATENT, **_HYBRID),
    'kolibri1': dict(_MOE, head_dim=16, **_SLIDING),
    'laguna': dict(_MOE, head_dim=16, **_SLIDING),
    'lara_mini': dict(GQA, head_dim=16, **_HYBRID),
    'lfm2_moe': dict(_MOE, layer_types=['conv', 'full_attention'], num_dense_layers=1),
    'lfm3': dict(GQA, layer_types=['conv', 'full_attention']),
    'mimo_v2_flash': dict(_MOE, head_dim=16, v_head_dim=12, **_SLIDING),
    'minicpm3': dict(_LATENT),
    'minimax': dict(_MOE, head_dim=16, **_HYBRID),
    'minimax_m3_vl_text': dict(_MOE, head_dim=16),
    'mobilebert': dict(SIZES, embedding_size=16, intra_bottleneck_size=16),
    'modernbert-decoder': dict(SIZES, **_SLIDING),
    'nomic_bert': dict(SIZES),
    'olmo_hybrid': dict(GQA, **_HYBRID),
    'phi4_multimodal': dict(
        GQA,
        sliding_window=3,
        vision_config=dict(_VISION, crop_size=8),
        audio_config=dict(
            hidden_size=32,
            intermediate_size=32,
            num_blocks=1,
            num_attention_heads=2,
            ext_pw_out_channel=32,
            depthwise_separable_out_channel=32,
            nemo_conv_channels=32,
        ),
    ),
    'phimoe': dict(_MOE, sliding_window=3),
    'qwen3_5_moe_text': dict(_MOE, head_dim=16, **_HYBRID),
    'sarvam_mla': dict(_LATENT),
    'sarvam_moe': dict(_GROUPED, head_dim=16),
    'tapas': dict(SIZES),
    'ultrabert': dict(GQA),
    'vaultgemma': dict(GQA, head_dim=16, **_SLIDING),
    'xlm-roberta-xl': dict(SIZES),
    'youtu': dict(_LATENT),
}

#: ``model_type`` -> config fields, which are also what ``LLMBlock(arch=...)`` takes.
OWN_FAMILIES: dict[str, dict] = {
    kind: dict(fields, model_type=kind) for kind, fields in _FIELDS.items()
}
