# OPT 125M: 12 layers, D = 768. A hub id: only the file
# that holds the layer is downloaded.
llm_block = dict(
    type='LLMBlock', checkpoint='facebook/opt-125m', layers=(-1,), dtype='float32'
)
