"""A study: which variants, how long, which rates, which seeds, and their results.

The clock decides once, before the first training: the plan that fits ``--minutes`` is stored
beside the features. Whatever is trained later follows the stored plan, so that a study that was
killed, has more seeds or another layer uses all that was trained before.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from lm4ve.errors import UserError, check
from lm4ve.files import write_json
from lm4ve.probing.features import Features
from lm4ve.probing.training import RECIPE, Job, Pool, Profile, digest, read_result, result_path
from lm4ve.probing.variants import BATCH, FAMILIES, Variant, list_blocks, list_controls

#: Learning rates: tuning begins with the middle three and goes on where the best is the last.
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_FIRST = LADDER[2:5]
#: Seeds of tuning; those of the comparison count from 0.
TUNING_SEEDS = (1000, 1001)
#: Numbers of steps that a plan may have, and of seeds where none is given.
_STEPS = (100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000, 1200, 1600, 2000)
_SEEDS = (8, 6, 5)
#: Most passes over the pictures that a plan spends time on.
_EPOCHS = 60
#: Steps that are measured, share of the minutes that is planned, and seconds for the report.
_MEASURED, _SHARE, _REPORT = 6, 0.95, 10.0


@dataclass(frozen=True)
class Settings:
    """What a user asks for; see the flags of ``lm4ve try``."""

    block: str
    layers: Sequence[int] = (-1,)
    formal: dict[str, str] = field(default_factory=dict)
    families: Sequence[str] = FAMILIES
    seeds: int | None = None
    minutes: float = 10.0
    rates: Sequence[float] = ()
    steps: int | None = None
    dtype: str = 'float32'
    resume: bool = True

    def __post_init__(self) -> None:
        for family in self.families:
            check('--variants', family, choices=FAMILIES)
        if 'frozen' not in self.families or len(set(self.families)) < 2:
            raise UserError("--variants must name 'frozen' and another one to compare it with.")
        if len(set(self.layers)) < len(self.layers):
            raise UserError(f'--layers {" ".join(map(str, self.layers))}: name each layer once.')
        check('--seeds', self.seeds or 2, least=2)
        check('--steps', self.steps or 2, least=10)
        check('the number of --rates', len(self.rates) or 3, least=3)


@dataclass
class Outcome:
    """The results of a study.

    Attributes:
        variants (list[Variant]): In the order of tables.
        profiles (dict[str, Profile]): By variant's name.
        correct (dict[str, np.ndarray]): What was right, bool ``[seeds, test pictures]``.
        seconds (dict[str, list[float]]): Of each training.
        tuning (dict[str, dict[float, float]]): Rate -> mean accuracy on 'val', in per cent.
        rates (dict[str, float]): The tuned ones.
        edges (set[str]): Variants whose best rate is the smallest or largest that was tried.
        steps (int): Of each training.
    """

    variants: list[Variant]
    profiles: dict[str, Profile]
    correct: dict[str, np.ndarray]
    seconds: dict[str, list[float]]
    tuning: dict[str, dict[float, float]]
    rates: dict[str, float]
    edges: set[str]
    steps: int

    def names(self, *families: str) -> list[str]:
        return [v.name for v in self.variants if v.family in families]

    def best_block(self) -> str:
        """Return the frozen variant that the validation pictures select."""
        return max(self.names('frozen'), key=lambda n: self.tuning[n][self.rates[n]])


class Study:
    """Trains what a study needs and is not stored yet.

    Args:
        features (Features): The tokens; results are stored beside them.
        settings (Settings): What to compare.
        pool (Pool): Trains.
        console (Console): Shows the progress.
        started (float): ``time.monotonic()`` when the minutes began.
    """

    def __init__(
        self,
        features: Features,
        settings: Settings,
        pool: Pool,
        console: Console,
        started: float | None = None,
    ) -> None:
        self.features, self.pool, self.console = features, pool, console
        self.settings = s = settings
        self.started = time.monotonic() if started is None else started
        self.variants: list[Variant] = []
        self.profiles: dict[str, Profile] = {}
        # Not the seeds and which layers: those may be added, and what is trained counts.
        parts = s.block, len(s.layers), *s.formal, *sorted(s.families), s.minutes, s.steps, s.dtype
        self.plan_path = features.folder / 'plans' / f'{digest([RECIPE, *parts])}.json'
        self.plan = self._stored_plan() if settings.resume else {}
        self._fresh: set[str] = set()

    # ------------------------------------------------------------- before the first training
    def prepare(self) -> None:
        """Build every variant once, count and measure it, and make or read the plan."""
        s, (_, _, tokens, channels) = self.settings, self.features.tokens.shape
        blocks = list_blocks(s.block, s.layers, s.formal, s.dtype)
        blocks = [v for v in blocks if v.family in s.families]
        self._profile(blocks)
        first = self.profiles[blocks[0].name]
        controls = list_controls(channels, tokens, first.embed_dims, first.neck_operations)
        controls = [v for v in controls if v.family in s.families]
        self._profile(controls)
        self.variants = sorted([*blocks, *controls], key=lambda v: FAMILIES.index(v.family))
        if not self.plan:
            self.plan = self._make_plan()
            write_json(self.plan, self.plan_path)
        self.plan = {**self.plan, 'seeds': self.settings.seeds or self.plan['seeds']}

    def _profile(self, variants: list[Variant]) -> None:
        steps = 0 if self.plan or self.settings.steps else _MEASURED
        found = {
            v.name: p for (v, _), p in self.pool.run('profile', [(v, steps) for v in variants])
        }
        for v in variants:
            profile = found[v.name]
            same = [n for n, p in self.profiles.items() if p.identity == profile.identity]
            if same:
                raise UserError(f"'{v.name}' and '{same[0]}' are the same weights. Fix: name one.")
            self.profiles[v.name] = profile

    def _stored_plan(self) -> dict[str, int]:
        """Return the plan of an earlier start with the same minutes for as many variants."""
        try:
            plan = json.loads(self.plan_path.read_text())
            return dict(steps=int(plan['steps']), seeds=int(plan['seeds']))
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _make_plan(self) -> dict[str, int]:
        """Return the steps and seeds that fit the minutes.

        Raises:
            UserError: None does.
        """
        s = self.settings
        count = s.seeds or _SEEDS[0]
        if s.steps:
            return dict(steps=s.steps, seeds=count)
        left = _SHARE * 60 * s.minutes - (time.monotonic() - self.started) - _REPORT
        most = _EPOCHS * math.ceil(len(self.features.splits['train']) / BATCH)
        plans = [
            dict(steps=steps, seeds=seeds)
            for seeds in ((s.seeds,) if s.seeds else _SEEDS)
            for steps in reversed(_STEPS)
            if steps <= max(most, 300)
        ]
        for plan in plans:
            if self.estimate(plan) <= left:
                return plan
        needed = (self.estimate(plans[-1]) - left) / 60 + s.minutes
        costly = max(self.profiles, key=lambda name: self.profiles[name].step_seconds)
        raise UserError(
            f'--minutes {s.minutes:g} is not enough: {len(self.variants)} variants with '
            f'{plans[-1]["seeds"]} seeds of {plans[-1]["steps"]} steps need about '
            f"{math.ceil(needed)}. Fix: allow them, or leave out the slowest, '{costly}' "
            f'(--variants), or take fewer --tokens.'
        )

    def estimate(self, plan: dict[str, int]) -> float:
        """Return the seconds of a plan, as if nothing was trained yet."""
        rates = len(self.settings.rates) or 4  # of the ladder, mostly
        trainings = rates * len(TUNING_SEEDS) + plan['seeds']
        total = sum(
            trainings * (plan['steps'] * p.step_seconds + p.fixed_seconds)
            for p in self.profiles.values()
        )
        return total / max(self.pool.count, 1)

    # ------------------------------------------------------------- trainings
    def run(self) -> Outcome:
        """Tune the rates, then train every seed with the tuned ones."""
        steps, seeds = self.plan['steps'], range(self.plan['seeds'])
        shown = '{task.description}', BarColumn(), '{task.percentage:3.0f} %', TimeRemainingColumn()
        with Progress(*shown, console=self.console) as self.progress:
            self.task = self.progress.add_task('tuning', total=None)
            tuning = self._tune()
            rates = {name: max(by, key=by.__getitem__) for name, by in tuning.items()}
            self.progress.update(self.task, description='training')
            pairs = [(seed, v) for seed in seeds for v in self.variants]
            jobs = [self._job(v, rates[v.name], seed, 'test') for seed, v in pairs]
            self._train(jobs)
        results: dict[str, list[tuple[np.ndarray, float]]] = {v.name: [] for v in self.variants}
        for job in jobs:
            results[job.variant.name].append(self._result(job))
        return Outcome(
            variants=self.variants,
            profiles=self.profiles,
            correct={n: np.stack([correct for correct, _ in r]) for n, r in results.items()},
            seconds={n: [seconds for _, seconds in r] for n, r in results.items()},
            tuning=tuning,
            rates=rates,
            edges={n for n, by in tuning.items() if rates[n] in (min(by), max(by))},
            steps=steps,
        )

    def _tune(self) -> dict[str, dict[float, float]]:
        """Return the mean accuracy of each variant and rate on the validation pictures."""
        given = sorted(self.settings.rates)
        tried = {v.name: list(given or _FIRST) for v in self.variants}
        while True:
            jobs = {
                (v.name, rate): [self._job(v, rate, seed, 'val') for seed in TUNING_SEEDS]
                for v in self.variants
                for rate in tried[v.name]
            }
            self._train([job for both in jobs.values() for job in both])
            found: dict[str, dict[float, float]] = {}
            for (name, rate), both in jobs.items():
                mean = np.mean([100 * self._result(job)[0].mean() for job in both])
                found.setdefault(name, {})[rate] = float(mean)
            further = {} if given else {name: _further(by) for name, by in found.items()}
            if not any(further.values()):
                return found
            for name, rates in further.items():
                tried[name] = sorted([*tried[name], *rates])

    def _train(self, jobs: list[Job]) -> None:
        """Run the jobs without a result, the costly ones first."""
        todo = [j for j in jobs if not self._is_stored(j)]
        todo.sort(key=lambda j: -self.profiles[j.variant.name].operations)
        self.progress.update(self.task, total=len(todo), completed=0)
        for (job,), _ in self.pool.run('run', [(j,) for j in todo]):
            self._fresh.add(job.key(self.features))
            self.progress.advance(self.task)

    def _is_stored(self, job: Job) -> bool:
        known = self.settings.resume or job.key(self.features) in self._fresh
        return known and read_result(self.features, job) is not None

    def _result(self, job: Job) -> tuple[np.ndarray, float]:
        result = read_result(self.features, job)
        if result is None:
            raise UserError(f"'{result_path(self.features, job)}' is gone. Fix: start again.")
        return result

    def _job(self, variant: Variant, rate: float, seed: int, split: str) -> Job:
        identity = self.profiles[variant.name].identity
        return Job(variant, identity, rate, seed, self.plan['steps'], split)


def _further(accuracies: Mapping[float, float]) -> list[float]:
    """Return the next rate of the ladder where the best one that was tried is the last."""
    best = LADDER.index(max(accuracies, key=accuracies.__getitem__))
    beside = LADDER[max(best - 1, 0) : best + 2]
    return [rate for rate in beside if rate not in accuracies]
