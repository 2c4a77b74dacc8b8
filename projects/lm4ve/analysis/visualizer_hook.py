"""``ActivationVisHook``: sheets of activations while a model is validated or tested.

They show what a block does as training goes on, in every backend of the visualizer.
Drawing is imported when a picture is due, so that naming the hook costs nothing.
"""

import copy
import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import Tensor, nn

from lm4ve.analysis.capture import analyse, unwrapped
from lm4ve.analysis.measures import check_measures
from lm4ve.analysis.points import resolve_points
from lm4ve.errors import UserError
from lm4ve.registry import HOOKS
from lm4ve.tasks import task_of_model

#: Wrappers whose forward pass waits for all processes.
_SHARDED = (
    'FullyShardedDataParallel',
    'FSDPModule',
    'DeepSpeedEngine',
    'MMDeepSpeedEngineWrapper',
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
        points (dict[str, str], optional): Label to module name; default:
            :func:`lm4ve.analysis.default_points`.
        measures (Sequence[str]): 'magnitude', 'frequency'.
        attention (bool): Also draw attention, where it can be read.
        heads (int): Heads with a panel of their own, beside their sum.
        out_dir (str, optional): Write PNG files
            ``<mode>_activations_<sample>_<step>.png`` here instead of to the backends.
        max_samples (int): Draw at most so many in each validation or test.

    Raises:
        UserError: An argument is wrong, or a point is no module of the model (before
            training or testing starts).

    A model in shards (FSDP, DeepSpeed) cannot be run by one process alone: nothing
    is drawn, and the log says so.
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
        out_dir: str | None = None,
        max_samples: int = 8,
    ) -> None:
        for name, value, least in (
            ('interval', interval, 1),
            ('heads', heads, 0),
            ('max_samples', max_samples, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise UserError(
                    f'ActivationVisHook.{name}={value!r} must be an integer of at least {least}.'
                )
        self.enable, self.interval, self.points = enable, interval, points
        self.measures, self.attention = check_measures(measures), attention
        self.heads, self.out_dir, self.max_samples = heads, out_dir, max_samples
        self._seen = self._drawn = 0

    def before_run(self, runner) -> None:
        """Look the points up, so that a typing error does not cost an epoch."""
        if not self.enable:
            return
        if _is_sharded(runner.model):
            print_log(
                'ActivationVisHook: the model is in shards, so that one process '
                'cannot run it alone; no activations are drawn. '
                'tools/analysis/visualize_activations.py draws them of a checkpoint.',
                logger='current',
                level=logging.WARNING,
            )
            self.enable = False
            return
        model = unwrapped(runner.model)
        self._task = task_of_model(type(model)).analysis
        resolve_points(model, self.points)

    def _before_epoch(self, runner, mode: str = 'train') -> None:
        self._seen = self._drawn = 0

    def _after_iter(
        self, runner, batch_idx, data_batch=None, outputs=None, mode: str = 'train'
    ) -> None:
        if self.enable and mode != 'train' and is_main_process():
            self._draw(runner, mode, data_batch, outputs)

    def _draw(self, runner, mode: str, data_batch: Any, outputs: Any) -> None:
        count = len(outputs)
        chosen = [i for i in range(count) if (self._seen + i) % self.interval == 0]
        chosen = chosen[: self.max_samples - self._drawn]
        first, self._seen = self._seen, self._seen + count
        if not chosen:
            return
        self._drawn += len(chosen)
        names = [
            self._task.sample_name(outputs[i], (first + i) * get_world_size() + get_rank())
            for i in chosen
        ]
        try:
            self._show(runner, mode, take(data_batch, chosen, count), names)
        except UserError as e:
            # No picture is worth a training that ends here.
            print_log(
                f'ActivationVisHook draws no more: {e}', logger='current', level=logging.WARNING
            )
            self.enable = False

    def _show(self, runner, mode: str, batch: Any, names: Sequence[str]) -> None:
        from PIL import Image

        from lm4ve.analysis.samples import samples_of
        from lm4ve.analysis.sheets import draw_sheet
        from lm4ve.tasks.base.figures import to_image

        model = unwrapped(runner.model)
        with _same_random_numbers():
            analysis = analyse(model, batch, self.points, self.attention)
            classes = (runner.visualizer.dataset_meta or {}).get('classes')
            samples = samples_of(analysis, model, names, self.measures, classes, self.heads)
        step = runner.iter
        for sample in samples:
            note = f'{runner.experiment_name}, {mode}, iteration {step}'
            image = to_image(draw_sheet(sample, note))
            name = f'{mode}_activations_{sample.name}'
            if self.out_dir is None:
                runner.visualizer.add_image(name, image, step=step)
            else:
                Path(self.out_dir).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(Path(self.out_dir) / f'{name}_{step}.png')


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
        return data[rows] if data.dim() and len(data) == count else data
    if isinstance(data, dict):
        return type(data)((k, take(v, rows, count)) for k, v in data.items())
    if isinstance(data, (list, tuple)) and len(data) == count:
        return [v if isinstance(v, Tensor) else copy.deepcopy(v) for v in (data[i] for i in rows)]
    return data


def _is_sharded(model: nn.Module) -> bool:
    """Return whether a forward pass of one process would wait for the others."""
    return any(k.__name__ in _SHARDED for m in model.modules() for k in type(m).__mro__)


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Leave the generators of torch, numpy and Python as they were."""
    numpy, python = np.random.get_state(), random.getstate()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)
