"""``lm4ve.fuse``: a model for inference, in which mappers are folded into their blocks.

As peft's merging and the fusing of detectors: one explicit step before deployment, instead
of folds that are kept while weights may change.
"""

import copy

from torch import nn

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.fused import FusedBlock, refuse_loading
from lm4ve.necks.llm_block_neck import LLMBlockNeck


def fuse(model: nn.Module) -> nn.Module:
    """Copy a model for inference, with every mapper folded into the block after it.

    In the copy folded constants have replaced ``mapper_in``, the norm and the projections of
    each block's first layer, so that nothing of them can change or go stale. A neck
    whose mapper or block is more than its weights (an adapter, a hook, a bias, another kind of
    block) is copied as it is.

    Args:
        model (nn.Module): Any model with or without necks; it stays as it is.

    Returns:
        nn.Module: The copy, in evaluation mode and without gradients of parameters. Its outputs
        equal the model's. To train it or to load a checkpoint into it is an error.
    """
    fused = copy.deepcopy(model).requires_grad_(False)
    fused.eval()  # mmpretrain's does not return the model
    for neck in [m for m in fused.modules() if isinstance(m, LLMBlockNeck)]:
        if isinstance(neck.block, LLMBlock) and neck.block.can_fold(neck.mapper_in):
            neck.block = FusedBlock(neck.block, neck.mapper_in.weight)
            neck.mapper_in = None
    fused.register_load_state_dict_pre_hook(refuse_loading)
    return fused
