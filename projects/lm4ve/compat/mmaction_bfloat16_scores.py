"""Train mmaction2's recognizers under autocast in bfloat16, which numpy does not have."""

from collections.abc import Callable
from typing import Any

import torch
import wrapt


def widen_bfloat16_scores(head: Any) -> None:
    """Let heads compute losses and accuracies from fp32 scores instead of bfloat16.

    Broken in mmaction2 1.2.0 (not reported upstream): for its training accuracies
    ``BaseHead.loss_by_feat`` turns the scores into a numpy array, which raises a
    ``TypeError`` for bfloat16. May go once it does not.
    """
    wrapt.wrap_function_wrapper(head, 'loss_by_feat', _with_wide_scores)


def _with_wide_scores(
    loss_by_feat: Callable[..., Any], head: Any, args: Any, kwargs: Any
) -> Any:
    """Call mmaction2's ``loss_by_feat`` with scores in fp32 if they are bfloat16."""

    def call(cls_scores: torch.Tensor, *others: Any, **named: Any) -> Any:
        if cls_scores.dtype == torch.bfloat16:
            cls_scores = cls_scores.float()
        return loss_by_feat(cls_scores, *others, **named)

    return call(*args, **kwargs)
