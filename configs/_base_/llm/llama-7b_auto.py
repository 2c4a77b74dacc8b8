# LLaMA-1 7B, as in llama-7b.py, for recipes without a loss scaler that nobody released
# with a block. Their small gradients would vanish in a float16 block, so it computes in
# bfloat16 where the device does, else in float32.
llm_block = dict(
    type='LLMBlock', checkpoint='data/llm/llama-7b', layers=(-1,), dtype='auto'
)
