# Llama 3.2 1B: 16 layers, D = 2048, 8 KV heads.
llm_block = dict(
    type='LLMBlock', checkpoint='data/llm/llama-3.2-1b', layers=(-1,), dtype='bfloat16'
)
