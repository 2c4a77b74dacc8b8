# OPT 6.7B: 32 layers, D = 4096. A hub id: only the file
# that holds the layer is downloaded.
llm_block = dict(
    type='LLMBlock', checkpoint='facebook/opt-6.7b', layers=(-1,), dtype='float16'
)
