"""What a dry run knows: the training that is planned, and what checks have learned of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from lm4ve.errors import DamagedFilesError


@dataclass
class Plan:
    """A training that is planned.

    A check reads the fields that earlier checks have set; its row in
    :data:`lm4ve.dry_run.checks.CHECKS` names these checks.

    Attributes:
        configure (Callable): Returns the config of the training, with all flags; with
            ``for_this_machine=False`` as for a machine with GPUs.
        folder (Path): A temporary folder, in the place of the work directory.
        device (str | None): A GPU that the training is planned for, as ``lm4ve cost``
            names it: its time and memory are estimated. None: it runs on what is here.
        cfg (Config): Set by the check of the config. ``work_dir`` is the training's.
        local_processes (int): How many processes of the training this machine has. Set
            by the check of the processes.
        loaders (dict[str, DataLoader]): By split, 'train' or 'val', as the training
            would use them, but without workers. Set by the check of the data, as are the next
            three.
        damage (DamagedFilesError, optional): The error with which the training would end
            for damage in what it scores.
        class_ends (dict[str, list[int]]): By split, the first and the last sample of
            each class; empty where samples have no class.
        iterations (int): How many the training has, of this process.
        done (int): How many of them the checkpoint has that the training continues
            from. Set by the check of the resume.
        checkpoint_bytes (int): The size of one checkpoint. Set by the steps.
        peak (float): How many times the learning rate of the first step the highest one
            is; 0: not known. Set by the check of the schedule.
        step_seconds (float): What a step of the full batch takes on the device; 0: it is
            not known.
        samples_of_worker (float): What one worker gives a second.
        samples_per_second (float): What the workers of this process give together.
    """

    configure: Callable[..., Config]
    folder: Path
    device: str | None = None
    cfg: Any = None
    local_processes: int = 1
    loaders: dict[str, Any] = field(default_factory=dict)
    damage: DamagedFilesError | None = None
    class_ends: dict[str, list[int]] = field(default_factory=dict)
    iterations: int = 0
    done: int = 0
    checkpoint_bytes: int = 0
    peak: float = 0.0
    step_seconds: float = 0.0
    samples_of_worker: float = 0.0
    samples_per_second: float = 0.0
