"""Build the runner that trains or evaluates a config.

All commands use :func:`build_runner`: it makes resuming exact (:mod:`.loops`), loading
strict (:mod:`.checkpoint_hooks`) and the console short (:mod:`.console`).
"""

import copy
import inspect
import logging
import math
from collections.abc import Mapping
from typing import Any

import mmengine.runner
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.registry import RUNNERS
from torch import nn

from lm4ve import compat
from lm4ve.errors import UserError, check
from lm4ve.necks.usage import NeckHook
from lm4ve.runner.accumulation import (
    check_batch,
    describe_update,
    is_auto,
    iterations_of_update,
)
from lm4ve.runner.checkpoint_hooks import PlainCheckpointHook
from lm4ve.runner.class_count import ClassCountHook
from lm4ve.runner.compiling import compile_training, parse_compile
from lm4ve.runner.config.completing import complete_config
from lm4ve.runner.config.schedules import ENDS
from lm4ve.runner.console import ConsoleHook, raise_when_closed, shorten
from lm4ve.runner.ending.hook import EndingHook
from lm4ve.runner.evaluation import BatchEvaluator
from lm4ve.runner.loops import schedules_of
from lm4ve.runner.per_class import PerClassHook
from lm4ve.runner.precision import (
    PrecisionHook,
    optim_wrappers,
    put_channels_last,
    refuse_other_dtypes,
    set_tf32,
)
from lm4ve.runner.resume import choose_start
from lm4ve.runner.running_statistics import RunningStatisticsHook
from lm4ve.runner.scored_data import SampleCountHook
from lm4ve.runner.without_gpu import join_group

#: The number of a group of parameters, and 'lr' or 'weight_decay'.
_Rate = tuple[int, str]


class Runner(mmengine.runner.Runner):  # type: ignore[misc]
    """MMEngine's ``Runner`` with a short console, which warns of schedules that a resume ignores.

    It compiles a model's forward pass in training, not the whole step
    (:mod:`.compiling`).

    Args:
        *args, **kwargs: MMEngine's.
        short_console (bool): Show warnings and the lines of :class:`ConsoleHook` on the
            console; the log file holds everything.
    """

    def __init__(self, *args: Any, short_console: bool = False, **kwargs: Any) -> None:
        self._short_console = short_console
        super().__init__(*args, **kwargs)

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up what MMEngine does, and where fp32 may be computed in TF32."""
        super().setup_env(env_cfg)
        set_tf32(env_cfg.get('tf32'))

    def build_model(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Build the model, with the channels last if the config says so.

        Raises:
            UserError: See :func:`lm4ve.runner.precision.refuse_other_dtypes`.
        """
        model: nn.Module = super().build_model(*args, **kwargs)
        if self.cfg.get('channels_last'):
            put_channels_last(model)
        refuse_other_dtypes(model)
        return model

    def train(self) -> nn.Module:
        """Train as MMEngine does, after a check of the batch size.

        Raises:
            UserError: See :func:`lm4ve.runner.accumulation.check_batch`.
        """
        check_batch(self.cfg, self.world_size)
        model: nn.Module = super().train()
        return model

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build MMEngine's wrapper, with the number of iterations that 'auto' stands for."""
        if isinstance(optim_wrapper, Mapping) and is_auto(self.cfg):
            counts = iterations_of_update(self.cfg, self.world_size)
            optim_wrapper = ConfigDict(optim_wrapper, accumulative_counts=counts)
            update = describe_update(self.cfg, self.world_size)
            self.logger.info(
                f"accumulative_counts='auto': {update or 'each iteration is an update'}."
            )
        return super().build_optim_wrapper(optim_wrapper)

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        """Build MMEngine's logger."""
        logger: logging.Logger = super().build_logger(*args, **kwargs)
        raise_when_closed(logger)
        if self._short_console:
            shorten(logger)
        return logger

    def _maybe_compile(self, target: str) -> None:
        """Compile the forward pass of training if the config says so, before its first step.

        Args:
            target (str): Not used: the method that MMEngine would compile.

        Raises:
            UserError: See :func:`lm4ve.runner.compiling.parse_compile` and
                :func:`lm4ve.runner.compiling.check_compile`.
        """
        options = parse_compile(self.cfg.get('compile', False))
        if options is not None:
            compile_training(self.model, options)
            self.logger.info(
                'The second training step compiles the model, and is slow.'
            )

    def build_evaluator(self, evaluator: Any) -> Evaluator:
        """Build MMEngine's evaluator, which waits once a batch for a GPU; or a user's own."""
        built = super().build_evaluator(evaluator)
        if type(built) is Evaluator:
            return BatchEvaluator(built.metrics)
        return built

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Resume a training, and warn of schedules of the config that do not apply.

        Raises:
            UserError: The config has another learning rate or weight decay than the
                checkpoint.
        """
        schedules = schedules_of(self)
        built = [dict(schedule.state_dict()) for schedule in schedules]
        rates = initial_rates(self)
        super().resume(*args, **kwargs)
        self._refuse_other_rates(rates, initial_rates(self))
        for before, schedule in zip(built, schedules, strict=True):
            self._warn_of_other_end(before, schedule.state_dict())

    def _refuse_other_rates(
        self, built: Mapping[_Rate, float], resumed: Mapping[_Rate, float]
    ) -> None:
        """Refuse the first rate of the config that is not the checkpoint's.

        The optimizer's state and the schedules hold rates that follow from it, and
        MMEngine goes on with these.

        Raises:
            UserError: It names both values.
        """
        for rate, value in built.items():
            before = resumed.get(rate, value)
            if math.isclose(value, before, rel_tol=1e-6):
                continue
            _, name = rate
            origin = ''
            if name == 'lr' and (self.auto_scale_lr or {}).get('enable'):
                origin = ', scaled by --auto-scale-lr'
            raise UserError(
                f"resume: the config's {name} is {value:.6g}{origin}, and the training "
                f'of the checkpoint had {before:.6g}, which it would keep. Fix: that value; or '
                'load_from=CHECKPOINT without --resume, which begins with its weights alone.'
            )

    def _warn_of_other_end(
        self, built: dict[str, Any], resumed: dict[str, Any]
    ) -> None:
        """Warn of the first field in which a schedule ends otherwise than its config says."""
        for key in ENDS:
            if built.get(key) != resumed.get(key):
                self.logger.warning(
                    f"param_scheduler.{key}={built.get(key)} does not apply: the checkpoint's "
                    f'schedule has {resumed.get(key)}. Use load_from without --resume to change it.'
                )
                return


def initial_rates(runner: Any) -> dict[_Rate, float]:
    """Return the learning rate and weight decay of each group of a runner's parameters.

    They are those of the beginning, before schedules have changed them.

    Args:
        runner (Runner): Its optimizers are built.
    """
    groups: list[dict[str, Any]] = []
    for wrapper in optim_wrappers(runner):
        groups += wrapper.optimizer.param_groups
    rates = {}
    for index, group in enumerate(groups):
        for name in ('lr', 'weight_decay'):
            value = group.get(f'initial_{name}', group.get(name))
            if value is not None:
                rates[index, name] = float(value)
    return rates


def build_runner(cfg: Config, short_console: bool = False) -> Any:
    """Build the config's runner: ours, or the one that ``runner_type`` names.

    On several processes without a GPU, these meet first. Then the start is chosen
    (:func:`lm4ve.runner.resume.choose_start`), and the config is completed
    (:func:`lm4ve.runner.config.completing.complete_config`).

    Args:
        cfg (Config): See :func:`lm4ve.runner.config.final.final_config`. Changed in
            place.
        short_console (bool): See :class:`Runner`.

    Returns:
        Runner: Ready to train, validate or test.

    Raises:
        UserError: ``runner_type`` is unknown, there is no such start, or a data set that
            is scored has ``test_mode=False``.
    """
    compat.activate()
    check('runner_type', cfg.get('runner_type', 'Runner'), choices=RUNNERS.module_dict)
    join_group(cfg)
    choose_start(cfg)
    scored = complete_config(cfg)
    runner = _construct(cfg, short_console)
    for field in scored:
        runner.logger.info(f'{field}.test_mode=True, since it is scored.')
    if short_console:
        runner.register_hook(ConsoleHook())
    # PlainCheckpointHook has to run after all other hooks that change a checkpoint, so it
    # is registered last.
    for hook_class in (
        SampleCountHook,
        NeckHook,
        EndingHook,
        ClassCountHook,
        PrecisionHook,
        PerClassHook,
        RunningStatisticsHook,
        PlainCheckpointHook,
    ):
        if not any(isinstance(hook, hook_class) for hook in runner.hooks):
            runner.register_hook(hook_class())
    return runner


def _construct(cfg: Config, short_console: bool) -> Any:
    """Construct the runner of the class that ``runner_type`` names.

    Raises:
        UserError: Another runner than ours would have to read our runner's fields.
    """
    runner_type = cfg.get('runner_type', 'Runner')
    if runner_type == 'Runner':
        return _construct_ours(cfg, short_console)
    _refuse_fields_of_our_runner(cfg, runner_type)
    runner = RUNNERS.get(runner_type).from_cfg(cfg)
    if short_console:
        shorten(runner.logger)
    return runner


def _refuse_fields_of_our_runner(cfg: Config, runner_type: str) -> None:
    """Refuse fields that only our runner reads.

    Raises:
        UserError: It names the first one.
    """
    fields: dict[str, Any] = {}
    if cfg.get('channels_last'):
        fields['channels_last'] = True
    tf32 = (cfg.get('env_cfg') or {}).get('tf32')
    if tf32 is not None:
        fields['env_cfg.tf32'] = tf32
    if is_auto(cfg):
        fields['optim_wrapper.accumulative_counts'] = 'auto'
    for name, value in fields.items():
        raise UserError(
            f"{name}={value}: runner_type='{runner_type}' does not read it. Fix: leave it out, "
            "or runner_type='Runner'."
        )


def _construct_ours(cfg: Config, short_console: bool) -> Runner:
    """Build this file's :class:`Runner` from a config, in the place of MMEngine's ``from_cfg``.

    The config's fields whose names are arguments of MMEngine's runner are passed as
    these arguments, and the whole config as ``cfg``. Others, such as a config's own
    variables, are in ``cfg`` alone.

    Args:
        cfg (Config): With ``model`` and ``work_dir``, which the runner requires. It is
            not changed.
        short_console (bool): See :class:`Runner`.
    """
    cfg = copy.deepcopy(cfg)
    parameters = inspect.signature(mmengine.runner.Runner).parameters
    arguments = {name: value for name, value in cfg.items() if name in parameters}
    return Runner(**arguments, cfg=cfg, short_console=short_console)
