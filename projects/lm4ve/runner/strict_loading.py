"""Load checkpoints strictly where a model is evaluated or a training resumed.

MMEngine loads what fits and logs the rest, so that a test of another model's checkpoint
ends with a score near chance and exit status 0.
"""

from collections import OrderedDict
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from lm4ve.blocks.provenance import accept_records
from lm4ve.compat.mmengine_load_reason import source_of, starts_training
from lm4ve.registry import HOOKS
from lm4ve.runner.checkpoint_files import load_strictly, select_state


@HOOKS.register_module()
class WholeCheckpointHook(Hook):  # type: ignore[misc]
    """Refuse a checkpoint that does not fit the model, by the names of its tensors.

    This holds for evaluation and for ``resume``. Training that begins with ``load_from``
    may take a part of a file, as fine-tuning does. Models that FSDP has split are not
    checked. When training or evaluation begins, the frozen weights are compared with what
    was read.

    Args:
        allow_partial (bool): Load what fits and log the rest, as MMEngine does.
    """

    # After the hooks that change the state, such as EMA's.
    priority = 'LOWEST'

    def __init__(self, allow_partial: bool = False) -> None:
        self.allow_partial = allow_partial

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Load the state strictly; what MMEngine then loads is the same.

        Raises:
            UserError: The file holds no state of a model.
            CheckpointError: Tensors are missing, unknown or of another shape.
        """
        model: Any = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        is_split = any(isinstance(m, FullyShardedDataParallel) for m in model.modules())
        if starts_training(runner) or is_split:
            return
        state = checkpoint.get('state_dict', checkpoint)
        if self.allow_partial:
            accept_records(model, state)
            return
        plain: OrderedDict[str, Any] = OrderedDict(select_state(dict(state_dict=state)))
        plain._metadata = getattr(state, '_metadata', {})  # type: ignore[attr-defined]
        load_strictly(model, plain, f"The checkpoint '{source_of(runner)}'")
