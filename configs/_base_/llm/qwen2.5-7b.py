# Qwen2.5 7B: 28 layers, D = 3584, 4 KV heads. Released in bfloat16.
llm_block = dict(
    type='LLMBlock', checkpoint='data/llm/qwen2.5-7b', layers=(-1,), dtype='bfloat16'
)
