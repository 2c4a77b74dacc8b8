"""``ActivationVisHook``: sheets of activations while a model is validated or tested.

They show what a block does as training goes on, in every backend of the visualizer.
Drawing is imported when a picture is due, so that naming the hook costs nothing.
"""

import copy
import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.analysis.capture import unwrapped
from lm4ve.analysis.measures import MEASURES
from lm4ve.analysis.points import resolve_points
from lm4ve.errors import UserError, check
from lm4ve.registry import HOOKS
from lm4ve.tasks import task_of_model

#: Parts of the names of wrappers whose forward pass waits for all processes.
_SHARDED = (
    'FullyShardedDataParallel',
    'FSDPModule',
    'DeepSpeedEngine',
    'ColossalAIModelWrapper',
)


@HOOKS.register_module()
class ActivationVisHook(Hook):
    """Draw activations of some samples in validation and testing.

    A sample's sheet goes to ``runner.visualizer.add_image`` as
    ``<val or test>_activations_<sample>``, at the step ``runner.iter``. Only the
    main process draws, of its own share of the samples, and nothing is communicated.
    The weights are those that are evaluated (the average, where an EMA hook swaps
    it in). Neither the model's mode nor a random generator is left changed.

    Args:
        enable (bool): Default: off.
        interval (int): Draw every n-th sample of the main process.
        points (dict[str, str], optional): Where activations are captured: label ->
            module name, with ``':input'`` after it for the module's input. Default:
            :func:`lm4ve.analysis.default_points`.
        measures (Sequence[str]): Which of 'magnitude' and 'frequency' to draw.
        attention (bool): Also draw attention, where it can be recomputed.
        heads (int): How many attention heads get a panel of their own, beside the sum
            over all heads.
        max_samples (int): Draw at most so many samples in each validation or test.

    Raises:
        UserError: An argument is wrong, or a point is no module of the model (before
            training or testing starts).

    A model in shards (FSDP, DeepSpeed) cannot be run by one process alone: nothing
    is drawn, and the log holds a warning.
    """

    # After the visualization hooks of the hosts, before the slow ones.
    priority = 'NORMAL'

    def __init__(
        self,
        enable: bool = False,
        interval: int = 100,
        points: dict[str, str] | None = None,
        measures: Sequence[str] = ('magnitude', 'frequency'),
        attention: bool = True,
        heads: int = 3,
        max_samples: int = 8,
    ) -> None:
        check('ActivationVisHook.interval', interval, kind=int, least=1)
        check('ActivationVisHook.heads', heads, kind=int, least=0)
        check('ActivationVisHook.max_samples', max_samples, kind=int, least=1)
        for name in measures:
            check('ActivationVisHook.measures', name, choices=MEASURES)
        self.enable = enable
        self.interval = interval
        self.points = points
        self.measures = measures
        self.attention = attention
        self.heads = heads
        self.max_samples = max_samples
        # How many samples of the current validation or test the main process has seen,
        # and how many of them it has drawn.
        self._seen = 0
        self._drawn = 0

    def before_run(self, runner) -> None:
        """Check before the first iteration that activations can be drawn.

        A model in shards turns the hook off, with a warning. For others the points are
        looked up, so that a misspelt name does not cost an epoch.

        Args:
            runner (Runner): Gives the model.

        Raises:
            UserError: A point is no module of the model.
        """
        if not self.enable:
            return
        if _is_sharded(runner.model):
            self._turn_off('one process cannot run a model in shards alone')
            return
        resolve_points(unwrapped(runner.model), self.points)

    def _before_epoch(self, runner, mode: str = 'train') -> None:
        """Count samples anew; MMEngine calls this before training, validation and testing."""
        self._seen = 0
        self._drawn = 0

    def _after_iter(
        self, runner, batch_idx, data_batch=None, outputs=None, mode: str = 'train'
    ) -> None:
        """Draw the samples of a validation or test batch that are due.

        Due are those whose number is a multiple of ``interval``, until ``max_samples``
        are drawn. An error while drawing ends the drawing, not the run.

        Args:
            runner (Runner): Gives the model and the visualizer.
            batch_idx (int): Not used: batches may differ in size, so samples are counted.
            data_batch (dict): The batch.
            outputs (Sequence): The prediction of each sample.
            mode (str): 'train', in which nothing is drawn, 'val' or 'test'.
        """
        if not self.enable or mode == 'train' or not is_main_process():
            return
        first = self._seen
        count = len(outputs)
        due = [i for i in range(count) if (first + i) % self.interval == 0]
        rows = due[: self.max_samples - self._drawn]
        self._seen += count
        self._drawn += len(rows)
        if not rows:
            return
        model = unwrapped(runner.model)
        try:
            protocol = task_of_model(type(model)).protocol
            names = []
            for i in rows:
                # Processes take turns with the samples of a data set.
                index = (first + i) * get_world_size() + get_rank()
                names.append(protocol.sample_name(outputs[i], index))
            batch = take(data_batch, rows, count)
            self._draw(runner, model, mode, batch, names)
        except UserError as e:
            # No picture is worth a training that ends here.
            self._turn_off(str(e))

    def _turn_off(self, reason: str) -> None:
        """Set ``enable`` to False, so that nothing more is drawn, and log why."""
        self.enable = False
        message = f'ActivationVisHook draws no activations: {reason}'
        print_log(message, logger='current', level=logging.WARNING)

    def _draw(
        self, runner, model: nn.Module, mode: str, batch: Any, names: Sequence[str]
    ) -> None:
        """Run the model once more on some samples, and add their sheets to the visualizer.

        Args:
            runner (Runner): Gives the visualizer and the config, and names the step.
            model (nn.Module): The model without the wrapper of distributed training.
            mode (str): 'val' or 'test'.
            batch (dict): The samples.
            names (Sequence[str]): Their names.
        """
        from lm4ve.analysis.drawing import draw_batch

        classes = None
        if runner.visualizer.dataset_meta:
            classes = runner.visualizer.dataset_meta.get('classes')
        with _restored_generators():
            sheets = draw_batch(
                model,
                batch,
                names,
                note=f'{runner.experiment_name}, {mode}, iteration {runner.iter}',
                points=self.points,
                measures=self.measures,
                attention=self.attention,
                heads=self.heads,
                evaluator=runner.cfg.get(f'{mode}_evaluator'),
                classes=classes,
            )
        for sheet in sheets:
            name = f'{mode}_activations_{sheet.sample.name}'
            runner.visualizer.add_image(name, sheet.image, step=runner.iter)


def _is_sharded(model: nn.Module) -> bool:
    """Return whether a part of a model is in shards on several processes.

    Wrappers are found by the names of their classes, since not all are installed.
    """
    for module in model.modules():
        for base in type(module).__mro__:
            if any(name in base.__name__ for name in _SHARDED):
                return True
    return False


def take(data: Any, rows: list[int], count: int) -> Any:
    """Take some samples of a batch.

    Args:
        data (Any): A batch: tensors ``[count, ...]`` and lists of ``count`` entries,
            at any depth of dicts.
        rows (list[int]): The samples' places in the batch.
        count (int): The number of samples in the batch.

    Returns:
        Any: A batch of the same structure. Entries that are not tensors are copied,
        since models write predictions into them.
    """
    if isinstance(data, Tensor):
        is_batch = data.dim() > 0 and len(data) == count
        return data[rows] if is_batch else data
    if isinstance(data, dict):
        return type(data)(
            (key, take(value, rows, count)) for key, value in data.items()
        )
    if not isinstance(data, (list, tuple)) or len(data) != count:
        return data
    taken = []
    for i in rows:
        entry = data[i]
        if not isinstance(entry, Tensor):
            entry = copy.deepcopy(entry)
        taken.append(entry)
    return taken


@contextmanager
def _restored_generators() -> Iterator[None]:
    """Restore the random generators of torch, numpy and Python afterwards."""
    numpy = np.random.get_state()
    python = random.getstate()
    devices = []
    if torch.cuda.is_available():
        devices.append(torch.cuda.current_device())
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)
