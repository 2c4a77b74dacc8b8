# LLaMA-1 7B, as in llama-7b.py, for recipes without a loss scaler. Their small gradients
# would vanish in a float16 block, so it computes in bfloat16 where the device does, else
# in float32. The released code of these recipes has float32. For exactly that:
#   --cfg-options model.neck.block.dtype=float32
llm_block = dict(
    type='LLMBlock', checkpoint='data/llm/llama-7b', layers=(-1,), dtype='auto'
)
