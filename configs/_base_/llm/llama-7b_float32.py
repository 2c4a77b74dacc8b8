# LLaMA-1 7B, as in llama-7b.py, in float32: for the tasks that train without mixed
# precision, as released. On a GPU that computes bfloat16, this saves time and half of
# the block's memory:
#   --cfg-options model.neck.block.dtype=auto
llm_block = dict(
    type='LLMBlock', checkpoint='data/llm/llama-7b', layers=(-1,), dtype='float32'
)
