# DeepSeek-R1-Distill-Qwen-1.5B: 28 layers, D = 1536, 2 KV heads.
llm_block = dict(
    type='LLMBlock',
    checkpoint='data/llm/deepseek-r1-distill-qwen-1.5b',
    layers=(-1,),
    dtype='bfloat16',
)
