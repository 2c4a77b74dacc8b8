# ViT-B with the block under FSDP, through MMEngine's FlexibleRunner: parameters,
# gradients and optimizer state are sharded; frozen weights, which are no
# parameters, stay whole on every GPU. Needs GPUs: MMEngine's FSDP wrapper has
# no CPU path.
#   tools/dist_train.sh configs/lm4ve/vit-b_llama_fsdp_in1k.py 8
_base_ = './vit-b_llama_in1k.py'

# 'fold' and 'absorb' read the mapper's weight outside its module's forward pass,
# where FSDP holds a shard of it only.
model = dict(neck=dict(low_rank='off'))
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel',
        # Modules mix trained and frozen parameters where a block is tuned.
        use_orig_params=True,
        auto_wrap_policy=dict(
            type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy',
            min_num_params=1_000_000,
        ),
    ),
)
optim_wrapper = dict(type='AmpOptimWrapper', use_fsdp=True)
# An average of sharded weights is not supported by MMEngine's hook.
custom_hooks = []
