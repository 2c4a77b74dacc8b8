"""Arguments by which hosts mark padding: a row a name, how it reads, and for which shape.

``lm4ve.wrap`` and ``LLMBlockInsert`` find a padding mask by the name of the argument
that it comes in, never by its values. An argument of another host is named at ``mask=``
in the same words; one whose name has 'mask' and that is named nowhere is refused.
"""

# Readings, of masks of tokens ``[B, N]`` or of pairs ``[B, Q, N]`` and ``[B, heads, Q,
# N]``.

#: True is padding, as in torch; floats are added to scores.
PADDING = 'padding'
#: 1 is kept and 0 is padding, as in transformers.
KEEP = 'keep'
#: Floats are added to scores, -inf is padding; of bools True is kept.
ADDITIVE = 'additive'
#: 1 is kept, of masks of pixels or patches ``[B, H, W]``.
PIXELS = 'pixels'
#: It does not mark padding among the tokens of the place.
IGNORE = 'ignore'
#: What may be named at ``mask=``.
READINGS = (PADDING, KEEP, ADDITIVE, PIXELS, IGNORE)
#: Sequences lie one after the other without padding, which a block would mix.
PACKED = 'packed'

#: Dimensions of ``[B, N]``.
TOKENS = 2
#: Dimensions of ``[B, H, W]``.
GRID = 3
#: Dimensions of ``[B, heads, Q, N]``.
PAIRS = 4
#: A row that holds for every shape.
ANY = 0

#: Name of an argument -> number of dimensions -> reading. Another number is refused.
MASKS = {
    # --- torch.nn
    'key_padding_mask': {TOKENS: PADDING},
    'src_key_padding_mask': {TOKENS: PADDING},
    'tgt_key_padding_mask': {TOKENS: PADDING},
    # These two are of the sequence that cross-attention reads.
    'memory_key_padding_mask': {ANY: IGNORE},
    'memory_mask': {ANY: IGNORE},
    # [N, N]: which pairs of tokens attend to each other.
    'src_mask': {TOKENS: IGNORE},
    'tgt_mask': {TOKENS: IGNORE},
    # Those of timm and of torch's attention function have four dimensions.
    'attn_mask': {TOKENS: IGNORE, PAIRS: ADDITIVE},
    # --- transformers
    'attention_mask': {TOKENS: KEEP, PAIRS: ADDITIVE},
    # LXMERT has two sequences, each with its mask.
    'lang_attention_mask': {TOKENS: KEEP, PAIRS: ADDITIVE},
    'visual_attention_mask': {TOKENS: KEEP, PAIRS: ADDITIVE},
    'pixel_mask': {GRID: PIXELS},
    'patch_attention_mask': {GRID: PIXELS},
    'pixel_attention_mask': {TOKENS: KEEP},
    # These three are of the sequence that cross-attention reads.
    'encoder_attention_mask': {ANY: IGNORE},
    'cross_attention_mask': {ANY: IGNORE},
    'inputs_mask': {ANY: IGNORE},
    # The decoder itself gets it as attention_mask.
    'decoder_attention_mask': {ANY: IGNORE},
    # Which tokens of Longformer attend to all.
    'global_attention_mask': {ANY: IGNORE},
    # A bool form of Longformer's attention_mask, which is given beside it.
    'is_index_masked': {ANY: IGNORE},
    'causal_attention_mask': {ANY: IGNORE},
    # mmaction2's Swin: which windows are neighbors.
    'mask_matrix': {ANY: IGNORE},
    # These four switch off heads of attention.
    'head_mask': {ANY: IGNORE},
    'decoder_head_mask': {ANY: IGNORE},
    'cross_attn_head_mask': {ANY: IGNORE},
    'layer_head_mask': {ANY: IGNORE},
    # Patches that a masked autoencoder hides.
    'bool_masked_pos': {ANY: IGNORE},
    # Spans that SpecAugment hides.
    'mask_time_indices': {ANY: IGNORE},
    'mask_feature_indices': {ANY: IGNORE},
    # The ground truth of a segmentation.
    'mask_labels': {ANY: IGNORE},
    'cu_seqlens': {ANY: PACKED},
    'cu_seq_lens_q': {ANY: PACKED},
    'cu_seq_lens_k': {ANY: PACKED},
    # --- timm
    'patch_valid': {TOKENS: KEEP},
}

#: Start of a class's full name -> rows of its own, where a name means something else
#: than above.
EXCEPTIONS = {
    # [N, N]: which pairs of tokens attend to each other.
    'torch.nn.modules.transformer.TransformerEncoder': {'mask': {TOKENS: IGNORE}},
    # These layers get the product of two masks, in which 1 is kept.
    'transformers.models.deberta': {
        'attention_mask': {TOKENS: KEEP, PAIRS: KEEP},
        'mask': {TOKENS: KEEP},
    },
    'transformers.models.sew_d': {'attention_mask': {TOKENS: KEEP, PAIRS: KEEP}},
    'transformers.models.xlm.modeling_xlm.MultiHeadAttention': {'mask': {TOKENS: KEEP}},
    'transformers.models.flaubert.modeling_flaubert.MultiHeadAttention': {
        'mask': {TOKENS: KEEP}
    },
    # 1 is kept in the argument of the model itself; those of its parts are added to
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
