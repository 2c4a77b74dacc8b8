# LLMBoostMedical's `llm_out_nn`: the outer residual goes through a layer and LeakyReLU.
_base_ = './vivit_llama-inner_fracturemnist3d.py'

model = dict(neck=dict(residual='outer', mapper=dict(skip='LeakyReLU')))
