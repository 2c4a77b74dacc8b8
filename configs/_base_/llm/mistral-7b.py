# Mistral 7B: 32 layers, D = 4096, 8 KV heads. Released in bfloat16.
llm_block = dict(
    type='LLMBlock', checkpoint='data/llm/mistral-7b', layers=(-1,), dtype='bfloat16'
)
