"""Arguments by which hosts are told of padding: a row a name, how it reads, and for which shape.

``lm4ve.wrap`` and ``LLMBlockInsert`` find a padding mask by the name of the argument
that it comes in, never by its values. An argument of another host is named at ``mask=``
in the same words; one whose name has 'mask' and that is named nowhere is refused.
"""

#: Readings, of masks of tokens ``[B, N]`` or of pairs ``[B, Q, N]`` and ``[B, heads, Q,
#: N]``.
PADDING = 'padding'  # True is padding, as in torch; floats are added to scores
KEEP = 'keep'  # 1 is kept and 0 is padding, as in transformers
ADDITIVE = (
    'additive'  # floats are added to scores, -inf is padding; of bools True is kept
)
#: 1 is kept, of masks of pixels or patches ``[B, H, W]``.
PIXELS = 'pixels'
#: It says nothing of padding among the tokens of the place.
IGNORE = 'ignore'
#: What may be named at ``mask=``.
READINGS = (PADDING, KEEP, ADDITIVE, PIXELS, IGNORE)
#: Sequences lie one after the other without padding, which a block would mix.
PACKED = 'packed'

TOKENS = 2  # dimensions of [B, N]
GRID = 3  # of [B, H, W]
PAIRS = 4  # of [B, heads, Q, N]
ANY = 0  # a row that holds for every shape

#: Name of an argument -> number of dimensions -> reading. Another number is refused.
MASKS = {
    # torch.nn
    'key_padding_mask': {TOKENS: PADDING},
    'src_key_padding_mask': {TOKENS: PADDING},
    'tgt_key_padding_mask': {TOKENS: PADDING},
    'memory_key_padding_mask': {
        ANY: IGNORE
    },  # of the sequence that cross-attention reads
    'memory_mask': {ANY: IGNORE},
    'src_mask': {TOKENS: IGNORE},  # [N, N]: which pairs attend to each other
    'tgt_mask': {TOKENS: IGNORE},
    'attn_mask': {
        TOKENS: IGNORE,
        PAIRS: ADDITIVE,
    },  # timm's and sdpa's have four dimensions
    # transformers
    'attention_mask': {TOKENS: KEEP, PAIRS: ADDITIVE},
    'lang_attention_mask': {TOKENS: KEEP, PAIRS: ADDITIVE},  # beside the next: LXMERT
    'visual_attention_mask': {TOKENS: KEEP, PAIRS: ADDITIVE},
    'pixel_mask': {GRID: PIXELS},
    'patch_attention_mask': {GRID: PIXELS},
    'pixel_attention_mask': {TOKENS: KEEP},
    'encoder_attention_mask': {
        ANY: IGNORE
    },  # of the sequence that cross-attention reads
    'cross_attention_mask': {ANY: IGNORE},
    'inputs_mask': {ANY: IGNORE},
    'decoder_attention_mask': {
        ANY: IGNORE
    },  # which the decoder itself gets as attention_mask
    'global_attention_mask': {ANY: IGNORE},  # which tokens of Longformer attend to all
    'is_index_masked': {ANY: IGNORE},  # what Longformer's attention_mask says beside it
    'causal_attention_mask': {ANY: IGNORE},
    'mask_matrix': {ANY: IGNORE},  # which windows of mmaction2's Swin are neighbors
    'head_mask': {ANY: IGNORE},  # of attention's heads
    'decoder_head_mask': {ANY: IGNORE},
    'cross_attn_head_mask': {ANY: IGNORE},
    'layer_head_mask': {ANY: IGNORE},
    'bool_masked_pos': {ANY: IGNORE},  # patches that a masked autoencoder hides
    'mask_time_indices': {ANY: IGNORE},  # spans that SpecAugment hides
    'mask_feature_indices': {ANY: IGNORE},
    'mask_labels': {ANY: IGNORE},  # the truth of a segmentation
    'cu_seqlens': {ANY: PACKED},
    'cu_seq_lens_q': {ANY: PACKED},
    'cu_seq_lens_k': {ANY: PACKED},
    # timm
    'patch_valid': {TOKENS: KEEP},
}

#: Start of a class's full name -> rows of its own, where a name means something else
#: than above.
EXCEPTIONS = {
    'torch.nn.modules.transformer.TransformerEncoder': {
        'mask': {TOKENS: IGNORE}
    },  # [N, N]
    # Products of two masks, of which 1 is kept.
    'transformers.models.deberta': {
        'attention_mask': {TOKENS: KEEP, PAIRS: KEEP},
        'mask': {TOKENS: KEEP},
    },
    'transformers.models.sew_d': {'attention_mask': {TOKENS: KEEP, PAIRS: KEEP}},
    'transformers.models.xlm.modeling_xlm.MultiHeadAttention': {'mask': {TOKENS: KEEP}},
    'transformers.models.flaubert.modeling_flaubert.MultiHeadAttention': {
        'mask': {TOKENS: KEEP}
    },
    # The model's own argument is 1 for what is kept, those of its parts are added to
    # scores.
    'transformers.models.longformer.modeling_longformer.LongformerEncoder': {
        'attention_mask': {TOKENS: ADDITIVE}
    },
    'transformers.models.longformer.modeling_longformer.LongformerLayer': {
        'attention_mask': {TOKENS: ADDITIVE}
    },
    'transformers.models.longformer.modeling_longformer.LongformerAttention': {
        'attention_mask': {TOKENS: ADDITIVE}
    },
    'transformers.models.longformer.modeling_longformer.LongformerSelfAttention': {
        'attention_mask': {TOKENS: ADDITIVE}
    },
    'transformers.models.led.modeling_led.LEDEncoderLayer': {
        'attention_mask': {TOKENS: ADDITIVE}
    },
    'transformers.models.led.modeling_led.LEDEncoderAttention': {
        'attention_mask': {TOKENS: ADDITIVE}
    },
    'transformers.models.led.modeling_led.LEDEncoderSelfAttention': {
        'attention_mask': {TOKENS: ADDITIVE}
    },
}

#: Arguments that are each a sequence: of a module that reads two, a mask may be of
#: either.
INPUTS = (
    'input_ids',
    'decoder_input_ids',
    'pixel_values',
    'pixel_values_videos',
    'input_values',
    'input_features',
    'visual_embeds',
    'visual_feats',
    'lang_feats',
)
