# Llama 2 7B: 32 layers, D = 4096. Released in float16.
llm_block = dict(
    type='LLMBlock', checkpoint='data/llm/llama-2-7b', layers=(-1,), dtype='float16'
)
