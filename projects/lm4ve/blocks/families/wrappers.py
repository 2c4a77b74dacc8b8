"""Models of several modalities, of which the text part's layers are used.

Their config names the text part's family; with another family of the table than the one
that stands here, they work as well.
"""

#: ``model_type`` of a wrapper -> the family of its text part, as released first.
WRAPPERS: dict[str, str] = {
    **dict.fromkeys(('aya_vision', 'cohere2_vision'), 'cohere2'),
    'paligemma': 'gemma',
    **dict.fromkeys(('gemma3', 'shieldgemma2'), 'gemma3_text'),
    'gemma4': 'gemma4_text',
    **dict.fromkeys(('granite_speech', 'granite_speech_plus'), 'granite'),
    'lfm2_vl': 'lfm2',
    **dict.fromkeys(
        (
            *('deepseek_vl', 'deepseek_vl_hybrid', 'glmasr', 'idefics3', 'janus', 'llava'),
            *('llava_next', 'llava_next_video', 'perception_lm', 'smolvlm', 'video_llava'),
            *('vipllava', 'voxtral'),
        ),
        'llama',
    ),
    'llama4': 'llama4_text',
    **dict.fromkeys(('idefics2', 'mistral3'), 'mistral'),
    'modernvbert': 'modernbert',
    **dict.fromkeys(('blip-2', 'instructblip', 'instructblipvideo'), 'opt'),
    'fuyu': 'persimmon',
    **dict.fromkeys(
        (
            *('audioflamingo3', 'fast_vlm', 'got_ocr2', 'internvl', 'llava_onevision'),
            *('musicflamingo', 'ovis2', 'pp_chart2table', 'qwen2_audio', 'vibevoice'),
            *('vibevoice_asr', 'video_llama_3'),
        ),
        'qwen2',
    ),
    'qwen2_vl': 'qwen2_vl_text',
    'qwen2_5_vl': 'qwen2_5_vl_text',
    **dict.fromkeys(('lighton_ocr', 'qianfan_ocr', 'qwen3_asr'), 'qwen3'),
    **dict.fromkeys(('minicpmv4_6', 'qwen3_5'), 'qwen3_5_text'),
    'qwen3_vl': 'qwen3_vl_text',
}
