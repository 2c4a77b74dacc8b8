# OPT 2.7B: 32 layers, D = 2560. A hub id: only the file
# that holds the layer is downloaded.
llm_block = dict(
    type='LLMBlock', checkpoint='facebook/opt-2.7b', layers=(-1,), dtype='float16'
)
