"""What an evaluation shares with the training of its model: the labels, and the pixels.

A class folder that is missing or misspelt moves the labels behind it, a list that
counts from 1 moves all of them, and other versions of the libraries that decode and
resize make other pixels. Each of them changes a score without an error.
"""

import contextlib
import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from lm4ve.compat.mmengine_runner_state import source_of, starts_training
from lm4ve.errors import UserError, brief, check
from lm4ve.runner.checkpoint_files import meta_of

#: Under this name versions are kept in a checkpoint's meta, and in the result of a
#: trial.
VERSIONS = 'pixel_versions'
_OPENCV = [f'opencv-{a}python{b}' for a in ('', 'contrib-') for b in ('', '-headless')]
_LIBRARIES = ('pillow', 'torchvision', 'decord', 'av', *_OPENCV)


def pixel_versions() -> dict[str, str]:
    """Return the versions of the installed libraries that make pixels."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def changed_versions(stored: object) -> str:
    """Name the libraries whose versions differ from stored ones; what one side lacks does not."""
    before, now = stored if isinstance(stored, Mapping) else {}, pixel_versions()
    both = sorted(before.keys() & now.keys())
    return ', '.join(
        f'{k} {before[k]} (here {now[k]})' for k in both if before[k] != now[k]
    )


class SameDataHook(Hook):  # type: ignore[misc]
    """Refuse evaluations whose labels do not mean what they meant in training."""

    _trained: object = None
    _answers: frozenset[bool] = frozenset()

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Store the versions of the libraries that make pixels."""
        checkpoint.setdefault('meta', {})[VERSIONS] = pixel_versions()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the classes; warn of other libraries."""
        self._trained = meta_of(checkpoint, 'dataset_meta').get('classes')
        changed = changed_versions(meta_of(checkpoint).get(VERSIONS))
        if changed and not starts_training(runner):
            text = f"'{source_of(runner)}' was trained on the pixels of {changed}."
            print_log(text, logger='current', level=logging.WARNING)

    def before_val_epoch(self, runner: Runner) -> None:
        """Compare the classes of the validation data with those of the training."""
        self._compare(runner, 'val')

    def before_test_epoch(self, runner: Runner) -> None:
        """Compare the classes of the test data with those of the training."""
        self._compare(runner, 'test')

    def _compare(self, runner: Runner, mode: str = 'train') -> None:
        """Compare the classes of the data with those of the training, by name.

        A new training gives them; a resumed one has them.

        Raises:
            UserError: A label has another name.
        """
        dataset = getattr(runner, f'{mode}_dataloader').dataset
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        if mode == 'train' and (starts_training(runner) or not self._trained):
            self._trained = classes
        names = self._trained, classes
        known = names if all(isinstance(n, (list, tuple)) for n in names) else ()
        for label, (there, here) in enumerate(zip_longest(*known)):
            if here not in (there, None):
                raise UserError(
                    f'{mode}_dataloader.dataset: label {label} is {brief(here)!r}, and the model '
                    f'learned it as {brief(there)!r}. Fix: the same class folders, or classes.'
                )
        self._answers = frozenset()

    before_train = _compare

    def after_test_iter(self, runner: Runner, outputs: Any = (), **others: Any) -> None:
        """Check the labels of an evaluated batch; note which answers the model can give.

        Raises:
            UserError: A label is none of the model's.
        """
        vocabulary = getattr(
            getattr(innermost(runner.model), 'head', None), 'index', ()
        )
        for sample in outputs if isinstance(outputs, (list, tuple)) else ():
            get: Any = getattr(sample, 'get', {}.get)
            scores = next(
                (s for s in map(get, ('pred_score', 'pred_scores')) if s is not None),
                (),
            )
            label = get('gt_label')
            if isinstance(label, torch.Tensor) and label.numel() and len(scores):
                for bound in label.aminmax():
                    check('gt_label', int(bound), least=0, most=len(scores) - 1)
            self._answers |= {
                a in vocabulary for a in get('gt_answers') or () if vocabulary
            }

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Refuse a score of zero where no right answer is in the vocabulary.

        Raises:
            UserError: The vocabulary is of other data.
        """
        if self._answers == {False} and not any((metrics or {}).values()):
            raise UserError('No right answer of the data is in model.head.vocabulary.')

    after_val_iter, after_val_epoch = after_test_iter, after_test_epoch


def innermost(model: Any) -> Any:
    """Return the model within wrappers, such as those for several GPUs or several views."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
