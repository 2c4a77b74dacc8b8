# LLaMA-1 7B, layer 15 of 0 to 31: what the paper's published video numbers came
# from (its text says the last; --cfg-options model.neck.block.layers="(31,)").
llm_block = dict(
    type='LLMBlock', checkpoint='data/llm/llama-7b', layers=(15,), dtype='float16'
)
