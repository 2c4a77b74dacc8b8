# openPangu-Embedded-1B: 26 layers, D = 1536, 6 KV heads, biases of the attention.
# Released in bfloat16; PanguMotion computes it in float32, without AMP. A folder with
# its config.json and model.safetensors (docs/guides/motion_forecasting.md).
llm_block = dict(
    type='LLMBlock',
    checkpoint='data/llm/openpangu-embedded-1b',
    layers=(-1,),
    dtype='float32',
)
