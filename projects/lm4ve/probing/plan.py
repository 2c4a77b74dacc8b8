"""How long a study trains: the numbers of steps and seeds that fit the minutes.

The clock decides once, before the first training: the plan that fits ``--minutes`` is
stored beside the features. Whatever is trained later follows the stored plan, so that a
study that was killed, or gets more seeds or another layer, uses all that was trained
before.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.logging import print_log

from lm4ve.errors import UserError
from lm4ve.files import read_json
from lm4ve.probing.features import Features
from lm4ve.probing.heads import BATCH, ProfiledHead
from lm4ve.probing.results import RECIPE, digest

#: Seeds of tuning; those of the comparison count from 0.
TUNING_SEEDS = (1000, 1001)
#: Steps that are measured before a plan is made.
MEASURED_STEPS = 6
#: Numbers of steps that a plan may have; best first.
_STEPS = (
    2000,
    1500,
    1200,
    1000,
    800,
    600,
    500,
    400,
    300,
    250,
    200,
    150,
    120,
    100,
    80,
    60,
)
#: Numbers of seeds that a plan may have where none is given; best first.
_SEEDS = (8, 6, 5, 4)
#: Most passes over the pictures that a plan spends time on, unless they are very few.
_EPOCHS = 60
_FEW_STEPS = 300
#: Of the ladder of learning rates four are tried, sometimes five.
_TRIED_RATES = 4.5
#: Seconds for the report.
_REPORT_SECONDS = 15.0
#: How much slower a step is among many than those that were measured.
_SLOWER = 1.2


@dataclass(frozen=True)
class StudySettings:
    """What a user asks of a study: flags of ``lm4ve try``.

    Attributes:
        block (str): The language model's checkpoint.
        layers (list[tuple[int, ...]]): Its layers that are compared: those of one block
            each.
        heads (list[int], optional): The query heads that the blocks keep; None: all.
        formal (dict[str, str]): Name -> weights that were pre-trained on a formal
            language.
        dtype (str): The type of the blocks' weights, such as 'float32'.
        families (list[str]): The families of heads that are compared, from
            :data:`lm4ve.probing.candidates.FAMILIES`.
        seeds (int, optional): How often each head is trained for the comparison;
            default: as the minutes allow.
        steps (int, optional): Batches of each training, however long they take;
            default: as the minutes allow.
        minutes (float): The time for the whole study, unless ``steps`` is given.
        rates (list[float]): Learning rates to try; empty: those of a ladder.
        margin (float): The smallest difference that matters, in points.
        workers (int): Processes that train; 0 trains in this process.
        resume (bool): Use stored results of earlier runs.
    """

    block: str
    layers: list[tuple[int, ...]]
    heads: list[int] | None
    formal: dict[str, str]
    dtype: str
    families: list[str]
    seeds: int | None
    steps: int | None
    minutes: float
    rates: list[float]
    margin: float
    workers: int
    resume: bool


@dataclass(frozen=True)
class Plan:
    """How long a study trains.

    Attributes:
        steps (int): Batches of each training.
        seeds (int): Trainings of each head in the comparison.
    """

    steps: int
    seeds: int

    def to_json(self) -> dict[str, int]:
        """Return the plan as plain data, as its file holds it."""
        return asdict(self)


def plan_file(features: Features, settings: StudySettings) -> Path:
    """Return the file of a study's plan, named by a hash of its settings.

    Of the layers only their numbers count, and the number of seeds and the heads do not:
    a study that gets other layers or more seeds keeps its plan, and uses what was
    trained before.

    Settings have two files. The first is written by a run that chose the number of seeds
    itself, and serves every later run. While it does not exist, runs for which the user
    gave the number of seeds share the second, which a run without ``--seeds`` never
    reads: it must not inherit their number.

    Args:
        features (Features): The tokens, beside which the plan lies.
        settings (StudySettings): The settings.
    """
    parts = [
        RECIPE,
        len(settings.layers),
        sorted(settings.formal),
        settings.block,
        settings.minutes,
        settings.steps,
        settings.dtype,
        settings.families,
    ]
    depths = [len(layers) for layers in settings.layers]
    if max(depths) > 1:
        parts.append(depths)
    path = features.folder / f'plan-{digest(parts)}.json'
    if settings.seeds is not None and not path.exists():
        return features.folder / f'plan-{digest([*parts, "seeds"])}.json'
    return path


def read_plan(path: Path) -> Plan | None:
    """Return a stored plan, or None if there is none or it is damaged; then warn."""
    stored = read_json(path)
    if isinstance(stored, dict) and stored.keys() == {'steps', 'seeds'}:
        steps = stored['steps']
        seeds = stored['seeds']
        are_numbers = type(steps) is int and type(seeds) is int
        if are_numbers and steps >= 1 and seeds >= 2:
            return Plan(steps, seeds)
    if path.exists():
        text = f"'{path}' is damaged: the study is planned anew."
        print_log(text, logger='current', level=logging.WARNING)
    return None


def make_plan(
    settings: StudySettings,
    heads: Sequence[ProfiledHead],
    pictures: int,
    spent: float,
) -> Plan:
    """Return the plan with the most seeds, and then the most steps, that fits the minutes.

    If the user gave the number of steps, the plan may take longer than the minutes.

    Args:
        settings (StudySettings): Minutes, and perhaps steps and seeds.
        heads (Sequence[ProfiledHead]): The heads, with the seconds of a step each.
        pictures (int): The number of pictures of the training split.
        spent (float): Seconds of the minutes that have passed already.

    Raises:
        UserError: No plan fits; the message gives the minutes of the shortest.
    """
    best_first = list(_possible_plans(settings, pictures))
    if settings.steps is not None:
        return best_first[0]
    for plan in best_first:
        if _minutes_of(plan, settings, heads, spent) <= settings.minutes:
            return plan
    shortest = best_first[-1]
    needed = math.ceil(_minutes_of(shortest, settings, heads, spent))
    slowest = max(heads, key=lambda head: head.step_seconds)
    raise UserError(
        f'--minutes {settings.minutes:g} is too few: {shortest.seeds} seeds of {shortest.steps} '
        f'steps need about {needed}. Fix: --minutes {needed}, fewer --tokens, or leave '
        f"variants out (--variants); the slowest is '{slowest.name}'."
    )


def _possible_plans(settings: StudySettings, pictures: int) -> Iterator[Plan]:
    """Yield plans, the best first: by seeds, then by steps.

    Args:
        settings (StudySettings): Seeds or steps that are given are the only choice.
        pictures (int): The number of pictures of the training split, which limits the
            steps that are useful.
    """
    steps_of_epoch = math.ceil(pictures / BATCH)
    most = max(_EPOCHS * steps_of_epoch, _FEW_STEPS)
    steps = [count for count in _STEPS if count <= most]
    if settings.steps is not None:
        steps = [settings.steps]
    seeds: Sequence[int] = _SEEDS
    if settings.seeds is not None:
        seeds = [settings.seeds]
    for seed_count in seeds:
        for step_count in steps:
            yield Plan(step_count, seed_count)


def _minutes_of(
    plan: Plan, settings: StudySettings, heads: Sequence[ProfiledHead], spent: float
) -> float:
    """Return the minutes of a whole study with a plan, if nothing is stored yet.

    Args:
        plan (Plan): The plan.
        settings (StudySettings): The learning rates to try and the number of workers.
        heads (Sequence[ProfiledHead]): The heads, with the seconds of a step each.
        spent (float): Seconds that have passed already, which are included.
    """
    rates = len(settings.rates) if settings.rates else _TRIED_RATES
    trainings_of_head = rates * len(TUNING_SEEDS) + plan.seeds
    seconds = 0.0  # of one training of each head
    for head in heads:
        seconds += plan.steps * head.step_seconds + head.fixed_seconds
    seconds *= _SLOWER * trainings_of_head / max(settings.workers, 1)
    return (spent + seconds + _REPORT_SECONDS) / 60
