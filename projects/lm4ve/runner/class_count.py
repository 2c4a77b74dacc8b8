"""Compare the size of a classifier's head with the classes of its training data.

A label beyond the head is an assertion or an index error of some library in the first
steps, which names neither the field nor the data.
"""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from lm4ve.errors import UserError
from lm4ve.runner.same_data import innermost

#: A model's attribute with its head: of mmpretrain and ours, mmaction2, mmsegmentation.
_HEADS = ('head', 'cls_head', 'decode_head')


class ClassCountHook(Hook):  # type: ignore[misc]
    """End a training whose data has more classes than the model's head."""

    # Before the hooks that look at the first batch.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Compare the numbers of classes, where head and data name them.

        A head may have more classes than the data, as one for ImageNet has on a part of
        it.

        Raises:
            UserError: It has fewer.
        """
        dataset = runner.train_dataloader.dataset
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        if not isinstance(classes, (list, tuple)):
            return
        model = innermost(runner.model)
        for name in _HEADS:
            count: Any = getattr(getattr(model, name, None), 'num_classes', None)
            # One logit is enough to tell two classes apart.
            is_one_logit = count == 1 and len(classes) == 2
            if isinstance(count, int) and count < len(classes) and not is_one_logit:
                raise UserError(
                    f'model.{name}.num_classes={count} is below the {len(classes)} classes of '
                    f'train_dataloader.dataset ({type(dataset).__name__}). Fix: '
                    f'model.{name}.num_classes={len(classes)}.'
                )
