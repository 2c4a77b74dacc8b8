"""Compare an evaluation's data with that of the training: the labels, and the pixels.

A missing or misspelt class folder shifts all later labels by one, a list that counts
from 1 shifts all of them, and other versions of the libraries that decode and resize
make other pixels. Each of them changes a score without an error.
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
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

#: The key of :func:`pixel_versions` in a checkpoint's meta and in the result of a trial.
VERSIONS = 'pixel_versions'
_LIBRARIES = (
    'pillow',
    'torchvision',
    'decord',
    'av',
    'opencv-python',
    'opencv-python-headless',
    'opencv-contrib-python',
    'opencv-contrib-python-headless',
)


def pixel_versions() -> dict[str, str]:
    """Return the versions of the installed libraries that make pixels."""
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def changed_versions(stored: object) -> str:
    """Name the libraries whose installed versions differ from stored ones.

    Libraries that are not installed, or were not, are left out.

    Args:
        stored: The result of :func:`pixel_versions` from a file. Anything but a mapping
            counts as nothing stored.

    Returns:
        str: For a message: 'pillow 12 (here 11), av 13 (here 14)'; '' without a
        difference.
    """
    if not isinstance(stored, Mapping):
        return ''
    installed = pixel_versions()
    changes = []
    for name in sorted(stored.keys() & installed.keys()):
        if stored[name] != installed[name]:
            changes.append(f'{name} {stored[name]} (here {installed[name]})')
    return ', '.join(changes)


class SameDataHook(Hook):  # type: ignore[misc]
    """Refuse data whose labels do not mean what they meant in training.

    The names of the training's classes come from the loaded checkpoint, or from the
    training data of a new run.
    """

    def __init__(self) -> None:
        #: Names of the classes in training, by label. From a file, so not checked yet.
        self._trained_classes: object = None
        #: Whether the present evaluation has right answers, as VQA has.
        self._answers_seen = False
        #: Whether one of them is in the model's vocabulary.
        self._answers_known = False

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Store the versions of the libraries that make pixels."""
        checkpoint.setdefault('meta', {})[VERSIONS] = pixel_versions()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the class names of a loaded checkpoint; warn if other libraries made its pixels."""
        self._trained_classes = meta_of(checkpoint, 'dataset_meta').get('classes')
        changes = changed_versions(meta_of(checkpoint).get(VERSIONS))
        if changes and not starts_training(runner):
            text = f"'{source_of(runner)}' was trained on the pixels of {changes}."
            print_log(text, logger='current', level=logging.WARNING)

    def before_train(self, runner: Runner) -> None:
        """Keep the class names of a new training; compare those of a resumed one.

        A new training may begin with the weights of a checkpoint (``load_from``), whose
        classes do not count any more.

        Raises:
            UserError: The resumed training had another name for a label.
        """
        classes = _classes_of(runner.train_dataloader)
        if starts_training(runner) or not self._trained_classes:
            self._trained_classes = classes
            return
        self._compare_classes(classes, 'train')

    def before_val_epoch(self, runner: Runner) -> None:
        """Compare the classes of the validation data with those of the training."""
        self._compare_classes(_classes_of(runner.val_dataloader), 'val')
        self._forget_answers()

    def before_test_epoch(self, runner: Runner) -> None:
        """Compare the classes of the test data with those of the training."""
        self._compare_classes(_classes_of(runner.test_dataloader), 'test')
        self._forget_answers()

    def _compare_classes(self, classes: object, mode: str) -> None:
        """Compare the classes of some data with those of the training, label by label.

        Data may have fewer classes. Nothing is compared where one of the two has no list
        of names.

        Args:
            classes: The names by label.
            mode (str): 'train', 'val' or 'test', for the error.

        Raises:
            UserError: A label has another name than in training.
        """
        trained = self._trained_classes
        if not isinstance(trained, (list, tuple)):
            return
        if not isinstance(classes, (list, tuple)):
            return
        for label, (learned, name) in enumerate(zip_longest(trained, classes)):
            if name is not None and name != learned:
                raise UserError(
                    f'{mode}_dataloader.dataset: label {label} is {brief(name)!r}, and the model '
                    f'learned it as {brief(learned)!r}. Fix: the same class folders, or classes.'
                )

    def _forget_answers(self) -> None:
        """Start an evaluation, in which no answer was seen yet; see :meth:`_check_answers`."""
        self._answers_seen = False
        self._answers_known = False

    def after_val_iter(self, runner: Runner, outputs: Any = (), **others: Any) -> None:
        """Check an evaluated batch; see :meth:`_check_batch`."""
        self._check_batch(runner, outputs)

    def after_test_iter(self, runner: Runner, outputs: Any = (), **others: Any) -> None:
        """Check an evaluated batch; see :meth:`_check_batch`."""
        self._check_batch(runner, outputs)

    def _check_batch(self, runner: Runner, outputs: Any) -> None:
        """Check the labels of an evaluated batch; note if the model knows one of its answers.

        Args:
            runner (Runner): The runner, whose model may have a head with a vocabulary.
            outputs: The evaluated samples, with their labels and predictions.

        Raises:
            UserError: A label is none of the model's.
        """
        if not isinstance(outputs, (list, tuple)):
            return
        samples = [sample for sample in outputs if hasattr(sample, 'get')]
        _check_labels(samples)
        head = getattr(innermost(runner.model), 'head', None)
        vocabulary = getattr(head, 'index', ())
        if not vocabulary:
            return
        for sample in samples:
            for answer in sample.get('gt_answers') or ():
                self._answers_seen = True
                if answer in vocabulary:
                    self._answers_known = True

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Refuse a vocabulary of other data; see :meth:`_check_answers`."""
        self._check_answers(metrics)

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Refuse a vocabulary of other data; see :meth:`_check_answers`."""
        self._check_answers(metrics)

    def _check_answers(self, metrics: dict[str, float] | None) -> None:
        """Refuse an evaluation with only zero scores if the model knows none of the right answers.

        Args:
            metrics (dict, optional): The scores by name.

        Raises:
            UserError: No right answer is in the model's vocabulary, which comes from
                other data.
        """
        none_is_known = self._answers_seen and not self._answers_known
        if none_is_known and not any((metrics or {}).values()):
            raise UserError('No right answer of the data is in model.head.vocabulary.')


def _classes_of(loader: Any) -> object:
    """Return the names of the classes of a dataloader's data, or None."""
    metainfo = getattr(loader.dataset, 'metainfo', None) or {}
    return metainfo.get('classes')


def _check_labels(samples: Sequence[Any]) -> None:
    """Check that the labels of evaluated samples are below the number of their scores.

    A sample without labels or scores passes. A GPU is waited for once, not once a
    sample.

    Args:
        samples (Sequence): A batch. Each may have ``gt_label``, and ``pred_score``
            (mmpretrain's name) or ``pred_scores``.

    Raises:
        UserError: A label is none of the model's.
    """
    labels_by_count: dict[int, list[torch.Tensor]] = {}
    for sample in samples:
        scores = sample.get('pred_score')
        if scores is None:
            scores = sample.get('pred_scores')
        label = sample.get('gt_label')
        if scores is None or len(scores) == 0:
            continue
        if isinstance(label, torch.Tensor) and label.numel() > 0:
            labels_by_count.setdefault(len(scores), []).append(label.flatten())
    for count, labels in labels_by_count.items():
        bounds = torch.stack(torch.cat(labels).aminmax())
        for bound in bounds.tolist():
            check('gt_label', int(bound), least=0, most=count - 1)


def innermost(model: Any) -> Any:
    """Return the model within wrappers, such as those for several GPUs or several views."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
