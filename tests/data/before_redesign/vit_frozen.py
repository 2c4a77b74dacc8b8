# A frozen random block that needs no files: two layers, chosen by arch and seed.
_base_ = './vit.py'

model = dict(
    neck=dict(
        block=dict(
            _delete_=True,
            type='LLMBlock',
            pretrained=False,
            seed=3,
            layers=(0, 1),
            arch=dict(
                model_type='llama',
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=8,
            ),
        )
    )
)
