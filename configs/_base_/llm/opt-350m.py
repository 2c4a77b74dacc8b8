# OPT 350M: 24 layers, D = 1024. Its norms come after the branches. A hub id: only
# the file that holds the layer is downloaded.
llm_block = dict(
    type='LLMBlock', checkpoint='facebook/opt-350m', layers=(-1,), dtype='float32'
)
