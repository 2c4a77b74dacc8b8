"""How long a study trains: the numbers of steps and seeds that fit the minutes.

The measured time of a step decides once, before the encoder has seen the data: the plan
that fits ``--minutes`` is stored beside the features. :mod:`lm4ve.probing.clock` counts
the work and not the waiting. Still, work takes longer where others use the cores and the
memory, so that a busy machine's plan serves one run and is not stored. Whatever is
trained later follows the stored plan, so that a study that was killed, or gets more seeds
or another layer, uses all that was trained before.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from lm4ve.errors import UserError
from lm4ve.files import read_json, write_json
from lm4ve.probing.candidates import DROPPED_FIRST
from lm4ve.probing.heads import BATCH, ProfiledHead
from lm4ve.probing.results import RECIPE, digest
from lm4ve.probing.tuning import FINALISTS, ladder_of
from lm4ve.runner.devices import find_device

#: Seeds of tuning: of all values, and of the best; those of the comparison count from 0.
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
#: Most passes over the pictures that a plan spends time on.
_EPOCHS = 60
#: So many steps it may spend in any case: few pictures are few steps a pass.
_ALWAYS_POSSIBLE = 300
#: Of the ladder of learning rates four are tried, sometimes five; then two again.
_TRAININGS_OF_TUNING = 6.5
#: Seconds for the report.
_REPORT_SECONDS = 15.0
#: A process that waits longer than this for a second of work shares its core.
_BUSY_WAITING = 1.3
#: How much slower a step is among many than those that were measured.
_SLOWDOWN = 1.2


@dataclass(frozen=True)
class StudySettings:
    """What a user asks of a study: flags of ``lm4ve try``.

    Attributes:
        blocks (dict[str, str]): Name -> the checkpoint of a language model.
        layers (list[tuple[int, ...]]): Their layers that are compared: those of one
            block each.
        kept_heads (list[int], optional): The query heads that the blocks keep; None: all.
        formal (dict[str, str]): Name -> weights that were pre-trained on a formal
            language.
        dtype (str): The type of all products and of the blocks' weights, 'float32' or
            'bfloat16'; 'auto': see :func:`lm4ve.probing.precision.choose_dtype`.
        families (list[str]): The families of heads that are compared, from
            :data:`lm4ve.probing.candidates.FAMILIES`.
        may_drop (bool): Whether a plan may leave families out; not those that the user
            named.
        shots (list[int]): Pictures of each class to train on, each in a comparison of
            its own; 0: all.
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

    blocks: dict[str, str]
    layers: list[tuple[int, ...]]
    kept_heads: list[int] | None
    formal: dict[str, str]
    dtype: str
    families: list[str]
    may_drop: bool
    shots: list[int]
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
        dropped (tuple[str, ...]): Families that are left out, since the minutes are too
            few for them.
    """

    steps: int
    seeds: int
    dropped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data, as its file holds it."""
        return dict(steps=self.steps, seeds=self.seeds, dropped=list(self.dropped))


@dataclass(frozen=True)
class Spent:
    """What a study takes beside its trainings, in seconds on free cores.

    Attributes:
        before (float): What has passed already.
        encoder (float): What the encoder will still take.
        encoder_of_picture (float): What it takes for a picture with its views.
    """

    before: float
    encoder: float = 0.0
    encoder_of_picture: float = 0.0


def find_plan(folder: Path, settings: StudySettings) -> Plan | None:
    """Return the stored plan of a study, or None if it has to be made.

    A plan for which the number of seeds was free serves every later run. One that was
    made for a given number serves only runs for which a number is given: others must
    not inherit it.

    Args:
        folder (Path): Where the tokens lie, and plans beside them.
        settings (StudySettings): The settings.
    """
    plan = _read_plan(_plan_file(folder, settings, has_seeds=False))
    if plan is None and settings.seeds is not None:
        plan = _read_plan(_plan_file(folder, settings, has_seeds=True))
    return plan


def write_plan(plan: Plan, folder: Path, settings: StudySettings) -> None:
    """Store the plan of a study, for :func:`find_plan`."""
    has_seeds = settings.seeds is not None
    write_json(plan.to_json(), _plan_file(folder, settings, has_seeds))


def _plan_file(folder: Path, settings: StudySettings, has_seeds: bool) -> Path:
    """Return the file of a plan, named by a hash of what it depends on.

    Of the layers only their numbers count. The number of seeds, that of workers and the
    query heads that blocks keep do not count: a study that gets other layers, more seeds
    or more cores keeps its plan, and uses what was trained before.

    Args:
        folder (Path): Where the tokens lie.
        settings (StudySettings): The settings.
        has_seeds (bool): Whether the user gave the number of seeds.
    """
    parts = [
        RECIPE,
        find_device(None).type,
        has_seeds,
        [len(layers) for layers in settings.layers],
        sorted(settings.formal),
        sorted(settings.blocks.values()),
        settings.minutes,
        settings.steps,
        settings.rates,
        settings.dtype,
        sorted(settings.families),
        settings.may_drop,
        sorted(settings.shots),
    ]
    return folder / f'plan-{digest(parts)}.json'


def _read_plan(path: Path) -> Plan | None:
    """Return a stored plan, or None if there is none or it is damaged; then warn."""
    plan = _parse_plan(read_json(path))
    if plan is None and path.exists():
        text = f"'{path}' is damaged: the study is planned anew."
        print_log(text, logger='current', level=logging.WARNING)
    return plan


def _parse_plan(stored: Any) -> Plan | None:
    """Return the plan that :meth:`Plan.to_json` gave, or None if the value is none."""
    if not isinstance(stored, dict) or stored.keys() != {'steps', 'seeds', 'dropped'}:
        return None
    steps = stored['steps']
    seeds = stored['seeds']
    dropped = stored['dropped']
    are_numbers = type(steps) is int and type(seeds) is int
    if not are_numbers or steps < 1 or seeds < 2 or not isinstance(dropped, list):
        return None
    if not set(dropped) <= set(DROPPED_FIRST):
        return None
    return Plan(steps, seeds, tuple(dropped))


def make_plan(
    settings: StudySettings, heads: Sequence[ProfiledHead], pictures: int, spent: Spent
) -> Plan:
    """Return the plan with the most seeds, and then the most steps, that fits the minutes.

    If not even the shortest fits, families are left out in the order of
    :data:`lm4ve.probing.candidates.DROPPED_FIRST`, unless the user named them. If the
    user gave the number of steps, the plan may take longer than the minutes.

    Args:
        settings (StudySettings): Minutes, and perhaps steps and seeds.
        heads (Sequence[ProfiledHead]): The heads, with the seconds of a step each.
        pictures (int): The number of pictures of the training split.
        spent (Spent): What else takes time.

    Raises:
        UserError: No plan fits; the message gives the minutes of the shortest.
    """
    best_first = list(_possible_plans(settings, pictures))
    if settings.steps is not None:
        return best_first[0]
    for dropped in _possible_drops(settings):
        kept = [head for head in heads if head.family not in dropped]
        for plan in best_first:
            if _minutes_of(plan, settings, kept, spent) <= settings.minutes:
                return replace(plan, dropped=dropped)
    raise UserError(_explain(best_first[-1], settings, heads, spent))


def is_busy(heads: Sequence[ProfiledHead]) -> bool:
    """Return whether others used the cores while the heads were timed.

    Args:
        heads (Sequence[ProfiledHead]): The heads; those that were not timed waited for
            nothing.
    """
    on_wall = sum(head.waiting * head.step_seconds for head in heads)
    return on_wall > _BUSY_WAITING * sum(head.step_seconds for head in heads)


def _possible_drops(settings: StudySettings) -> Iterator[tuple[str, ...]]:
    """Yield the families that a plan may leave out: none, then one more each time."""
    yield ()
    if not settings.may_drop:
        return
    for count in range(1, len(DROPPED_FIRST) + 1):
        yield DROPPED_FIRST[:count]


def _explain(
    shortest: Plan,
    settings: StudySettings,
    heads: Sequence[ProfiledHead],
    spent: Spent,
) -> str:
    """Return the message where no plan fits: what is needed, and what would fit.

    Args:
        shortest (Plan): The shortest plan.
        settings, heads, spent: See :func:`make_plan`.
    """
    needed = math.ceil(_minutes_of(shortest, settings, heads, spent))
    fixes = [f'--minutes {needed}']
    least = ''
    if settings.may_drop:
        heads = [head for head in heads if head.family not in DROPPED_FIRST]
        fewer = math.ceil(_minutes_of(shortest, settings, heads, spent))
        least = f', or {fewer} without {", ".join(DROPPED_FIRST)}'
        fixes.append(f'--minutes {fewer}')
    without_encoder = replace(spent, encoder=0.0)
    others = _minutes_of(shortest, settings, heads, without_encoder)
    if spent.encoder > 0 and others < settings.minutes:
        room = 60 * (settings.minutes - others)
        pictures = int(room / spent.encoder_of_picture)
        if pictures > 0:
            fixes.append(f'--limit {pictures}')
    slowest = max(heads, key=lambda head: head.step_seconds)
    fixes.append(
        'fewer --tokens, or leave variants out (--variants); the slowest is '
        f"'{slowest.name}'"
    )
    return (
        f'--minutes {settings.minutes:g} is too few: the encoder needs about '
        f'{spent.encoder / 60:.1f} on free cores, and with {shortest.seeds} seeds of '
        f'{shortest.steps} steps the study needs about {needed}{least}. Fix: '
        f'{", ".join(fixes)}.'
    )


def _possible_plans(settings: StudySettings, pictures: int) -> Iterator[Plan]:
    """Yield plans, the best first: by seeds, then by steps.

    Args:
        settings (StudySettings): Seeds or steps that are given are the only choice.
        pictures (int): The number of pictures of the training split, which limits the
            steps that are useful.
    """
    steps_of_epoch = math.ceil(pictures / BATCH)
    most = max(_EPOCHS * steps_of_epoch, _ALWAYS_POSSIBLE)
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
    plan: Plan, settings: StudySettings, heads: Sequence[ProfiledHead], spent: Spent
) -> float:
    """Return the minutes of a whole study with a plan, if nothing is stored yet.

    Args:
        plan (Plan): The plan.
        settings (StudySettings): The learning rates to try and the number of workers.
        heads (Sequence[ProfiledHead]): The heads, with the seconds of a step each.
        spent (Spent): What else takes time, which is included.
    """
    seconds = 0.0
    for head in heads:
        seconds += _seconds_of(head, plan, settings)
    seconds *= _SLOWDOWN / _count_trainers(settings.workers)
    return (spent.before + spent.encoder + seconds + _REPORT_SECONDS) / 60


def _count_trainers(workers: int) -> int:
    """Return how many heads train at a time: one for each process, but one for a GPU."""
    if find_device(None).type != 'cpu':
        return 1
    return max(workers, 1)


def _seconds_of(head: ProfiledHead, plan: Plan, settings: StudySettings) -> float:
    """Return the seconds in which a core trains a head for a plan, tuning included."""
    if head.is_fitted:
        # It has one seed, unless the pictures are drawn anew with each.
        return (len(ladder_of(head.family, ())) + 1) * head.fixed_seconds
    trainings: float = _TRAININGS_OF_TUNING
    if settings.rates:
        trainings = len(settings.rates) + FINALISTS
    trainings += plan.seeds
    training = plan.steps * head.step_seconds + head.fixed_seconds
    profiling = MEASURED_STEPS * head.step_seconds + head.fixed_seconds
    return trainings * training + profiling
