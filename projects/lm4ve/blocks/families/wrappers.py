"""Models of several modalities, of which the text part's layers are used.

Their config names the text part's family; with another family of the table than the one
that stands here, they work as well.
"""

#: The family of a text part, as released first -> ``model_type`` of the wrappers that
#: carry it.
_BY_FAMILY = {
    'cohere2': 'aya_vision cohere2_vision',
    'gemma': 'paligemma',
    'gemma3_text': 'gemma3 shieldgemma2',
    'gemma4_text': 'gemma4',
    'granite': 'granite_speech granite_speech_plus',
    'lfm2': 'lfm2_vl',
    'llama': 'deepseek_vl deepseek_vl_hybrid glmasr idefics3 janus llava llava_next '
    'llava_next_video perception_lm smolvlm video_llava vipllava voxtral',
    'llama4_text': 'llama4',
    'mistral': 'idefics2 mistral3',
    'modernbert': 'modernvbert',
    'opt': 'blip-2 instructblip instructblipvideo',
    'persimmon': 'fuyu',
    'qwen2': 'audioflamingo3 fast_vlm got_ocr2 internvl llava_onevision musicflamingo ovis2 '
    'pp_chart2table qwen2_audio vibevoice vibevoice_asr video_llama_3',
    'qwen2_vl_text': 'qwen2_vl',
    'qwen2_5_vl_text': 'qwen2_5_vl',
    'qwen3': 'lighton_ocr qianfan_ocr qwen3_asr',
    'qwen3_5_text': 'minicpmv4_6 qwen3_5',
    'qwen3_vl_text': 'qwen3_vl',
}
#: ``model_type`` of a wrapper -> the family of its text part.
WRAPPERS = {
    kind: family for family, kinds in _BY_FAMILY.items() for kind in kinds.split()
}
