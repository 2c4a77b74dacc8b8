"""Count iterations anew where the epochs of a resumed training have another length.

A checkpoint counts epochs and iterations, and MMEngine takes for granted that all epochs
had the present number of iterations: by it, it limits a training (``max_iters``), logs
how far it is, and adds up gradients. On other processes, or with another batch size or
other data, this is wrong. A checkpoint of one epoch of 100 iterations looked like one in
which two epochs of 50 were done, and the second epoch trained nothing.

So a checkpoint says how long its epochs were. Where they have another length now, a
resumed training counts its iterations as if all its epochs had had the present one, as
MMCV 1.x did after a change of the number of GPUs.
"""

import re
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from lm4ve.compat.mmengine_runner_state import source_of, starts_training
from lm4ve.runner.checkpoint_hooks import GRADIENTS

#: The key of the number of iterations of an epoch in a checkpoint's meta.
LENGTH = 'epoch_length'
_END_OF_EPOCH = re.compile(r'epoch_\d+\.pth$')


class EpochLengthHook(Hook):  # type: ignore[misc]
    """Store the length of an epoch in checkpoints, and count by it when training resumes.

    Args:
        length (int): The number of iterations of an epoch.
    """

    # Before the hooks that read the checkpoint.
    priority = 'VERY_HIGH'

    def __init__(self, length: int) -> None:
        self.length = length

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Store the length of an epoch."""
        checkpoint.setdefault('meta', {})[LENGTH] = self.length

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Change the number of iterations in a resumed checkpoint, if epochs have changed.

        An epoch that was begun then begins anew: other batches share out its samples
        otherwise, so that those which are left do not make up whole batches. Gradients
        that it has added up are left out.
        """
        meta = checkpoint.get('meta')
        if starts_training(runner) or not isinstance(meta, dict):
            return
        before = _length_before(meta, source_of(runner))
        if before == self.length:
            return
        if before is None and _may_have(self.length, meta):
            return
        finished = meta['epoch']
        is_begun = True
        if before is not None:
            # One more than the epochs that have ended, if their last iteration was saved.
            finished, rest = divmod(meta['iter'], before)
            is_begun = rest > 0
        meta['iter'] = finished * self.length
        text = (
            f'epochs have {self.length} iterations, and had {before or "others"} in '
            f"'{source_of(runner)}', which counts as iteration {meta['iter']} now."
        )
        if is_begun:
            checkpoint.pop(GRADIENTS, None)
            text += f' Epoch {finished + 1} begins anew, with samples that it has trained on.'
        runner.logger.warning(text)


def _length_before(meta: dict[str, Any], source: str) -> int | None:
    """Return how many iterations an epoch had when a checkpoint was written.

    Files of MMEngine and of earlier versions do not say so; those of an epoch's end have
    it in their numbers.

    Args:
        meta (dict): Of the checkpoint.
        source (str): The checkpoint's path.

    Returns:
        int, optional: None if it is not known.
    """
    stored = meta.get(LENGTH)
    if isinstance(stored, int) and stored > 0:
        return stored
    epoch = meta['epoch']
    is_end = _END_OF_EPOCH.search(Path(source).name) is not None
    if is_end and epoch > 0 and meta['iter'] % epoch == 0:
        return int(meta['iter'] // epoch)
    return None


def _may_have(length: int, meta: dict[str, Any]) -> bool:
    """Return whether the numbers of a checkpoint permit epochs of a length."""
    done = int(meta['iter']) - int(meta['epoch']) * length
    return 0 <= done <= length
