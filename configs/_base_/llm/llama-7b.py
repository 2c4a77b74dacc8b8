# LLaMA-1 7B: 32 layers, D = 4096, 202 M parameters a layer. A Hugging Face or a
# Meta folder; put it there, link it there, or name another place with
#   --cfg-options model.neck.block.checkpoint=/path/to/llama-7b
# float16 is the type it was released in, so nothing is lost by it in recipes with a
# loss scaler (AmpOptimWrapper). Others take llama-7b_float32.py or llama-7b_auto.py.
llm_block = dict(
    type='LLMBlock', checkpoint='data/llm/llama-7b', layers=(-1,), dtype='float16'
)
