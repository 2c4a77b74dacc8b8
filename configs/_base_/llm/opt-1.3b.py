# OPT 1.3B: 24 layers, D = 2048. A hub id: only the file
# that holds the layer is downloaded.
llm_block = dict(
    type='LLMBlock', checkpoint='facebook/opt-1.3b', layers=(-1,), dtype='float16'
)
