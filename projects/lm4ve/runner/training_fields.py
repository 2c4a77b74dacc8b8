"""Which fields of a config change no prediction, or act in training only.

:mod:`.trained_config` leaves them out of its comparison. A field that is in no table is
compared.
"""

import re

#: Fields that change no number: initial weights, which the checkpoint's replace; memory;
#: how files are read; what is reported beside.
WITHOUT_EFFECT = {
    '_scope_',
    'algorithm_keys',
    'backend_args',
    'cal_acc',
    'collect_device',
    'compile',
    'file_client_args',
    'init',
    'init_cfg',
    'init_scale',
    'init_std',
    'init_values',
    'io_backend',
    'layer_scale_init_value',
    'max_testing_views',
    'meta_keys',
    'non_blocking',
    'num_threads',
    'pretrained2d',
    'rel_pos_zero_init',
    'topk',
    'torchvision_pretrain',
    'use_checkpoint',
    'with_cp',
    'zero_init_residual',
}
#: Fields of a model or its preprocessor that act in training only.
TRAINING_ONLY = {
    'all_frozen',
    'batch_augments',
    'blending',
    'bn_frozen',
    'frozen',
    'frozen_layers',
    'frozen_stages',
    'label_smooth_eps',
    'label_smooth_val',
    'label_smoothing',
    'momentum',
    'norm_eval',
    'p_trainable',
    'requires_grad',
    'stop_grad_conv1',
    'train_cfg',
    'trainable',
}
#: Rates of dropping, such as 'drop_path_rate', 'attn_drop' and 'dropout_layer'. Not
#: 'drop_layers', which says how deep an encoder is.
_DROPPING = re.compile(
    r'(\w+_)?(drop|dropout|drop_path)(_(rate|ratio|prob|layer|cfg))?'
)
_LOSS = re.compile(r'loss(es)?(_\w+)?|\w+_loss')
#: Fields that name where weights come from.
SOURCES = {'checkpoint', 'pretrained'}
#: Class -> its fields that are compared. The others are in the record in its state, which
#: refuses other ones (``lm4ve/blocks/record.py``).
RECORDED: dict[str, set[str]] = {'LLMBlockNeck': {'block'}, 'LLMBlock': set()}
#: Classes that compute the same in evaluation, from the same weights.
SAME_IN_EVALUATION = {
    'SyncBN': 'BN',
    'MMSyncBN': 'BN',
    'naiveSyncBN': 'BN',
    'ReleasedViT': 'VisionTransformer',
}
#: Fields of an optimizer that a resumed training refuses (:mod:`.runner`), and the size
#: of its batch.
OF_OPTIMIZER = {'accumulative_counts', 'lr', 'weight_decay'}


def is_loss(field: str) -> bool:
    """Return whether a field of a model has a loss, or the weight of one."""
    return _LOSS.fullmatch(field) is not None


def acts_in_training_only(field: str) -> bool:
    """Return whether a field of a model that is no loss acts in training only."""
    return field in TRAINING_ONLY or _DROPPING.fullmatch(field) is not None
