"""What happens around a model while it trains: runner, configs, checkpoints, hooks, commands.

Importing this package imports none of its modules: blocks and tasks use the small ones.
It only registers its repairs of the libraries' inference, which wait as all others do.
"""

from lm4ve import compat

compat.register(
    'mmengine.infer.infer',
    'mmengine.infer.infer:BaseInferencer._load_weights_to_model',
    'lm4ve.runner.strict_inference:infer_from_whole_checkpoints',
)
for _module in ('mmpretrain.apis.base', 'mmaction.apis.inference'):
    compat.register(
        _module,
        f'{_module}:load_checkpoint',
        'lm4ve.runner.strict_inference:load_whole_checkpoints',
    )
compat.register(
    'mmpretrain.apis.model',
    'mmpretrain.apis.model:get_model',
    'lm4ve.runner.strict_inference:load_whole_checkpoints',
)
