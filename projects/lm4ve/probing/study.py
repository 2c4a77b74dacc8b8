"""A study: how long, which rates, which seeds, and the results of all variants.

The clock decides once, before the first training: the plan that fits ``--minutes`` is stored
beside the features. Whatever is trained later follows the stored plan, so that a study that was
killed, or gets more seeds or another layer, uses all that was trained before.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from lm4ve.errors import UserError
from lm4ve.files import write_json
from lm4ve.probing.features import Features
from lm4ve.probing.training import RECIPE, Job, Profile, Run, digest, read_result
from lm4ve.probing.variants import BATCH, FAMILIES, Variant, list_blocks, list_controls

#: Learning rates: tuning begins with the middle three and goes on where the best is the last.
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_FIRST = LADDER[2:5]
#: Seeds of tuning; those of the comparison count from 0.
TUNING_SEEDS = (1000, 1001)
#: Numbers of steps and, where none is given, of seeds that a plan may have; best first.
_STEPS = (2000, 1500, 1200, 1000, 800, 600, 500, 400, 300, 250, 200, 150, 120, 100, 80, 60)
_SEEDS = (8, 6, 5, 4)
#: Most passes over the pictures that a plan spends time on, steps that are measured, and
#: seconds for the report.
_EPOCHS, _MEASURED, _REPORT = 60, 6, 15.0


class Study:
    """Trains what a study needs and is not stored yet.

    Args:
        features (Features): The tokens; results are stored beside them.
        args (Namespace): The flags of ``lm4ve try``.
        formal (Mapping[str, str]): Name -> folder of weights from a formal language.
        run (Run): Trains.
        workers (int): Trainings at a time.
        started (float): ``time.monotonic()`` when the minutes began.

    Attributes:
        variants (list[Variant]): In the order of tables.
        profiles (dict[str, Profile]): By variant's name.
        plan (dict[str, int]): 'steps' and 'seeds'.
        tuning (dict[str, dict[float, float]]): Variant -> rate -> mean accuracy on 'val', per cent.
        rates (dict[str, float]): The best ones.
        correct (dict[str, np.ndarray]): What was right, bool ``[seeds, test pictures]``.
        seconds (dict[str, float]): Median of a training.
    """

    def __init__(
        self,
        features: Features,
        args: argparse.Namespace,
        formal: Mapping[str, str],
        run: Run,
        workers: int,
        started: float,
    ) -> None:
        self.features, self.args, self.run, self.workers = features, args, run, max(workers, 1)
        self._since = 0.0 if args.resume else time.time()
        # Not the seeds and which layers: they may be added, and what was trained counts.
        fields = 'block', 'minutes', 'steps', 'dtype', 'variants'
        parts = [RECIPE, len(args.layers), sorted(formal), *(getattr(args, f) for f in fields)]
        path = features.folder / f'plan-{digest(parts)}.json'
        stored = args.resume and path.exists()
        self.plan: dict[str, int] = json.loads(path.read_text()) if stored else {}
        self.profiles: dict[str, Profile] = {}
        blocks = self._profile(list_blocks(args.block, args.layers, formal, args.dtype))
        first = self.profiles[blocks[0].name]
        *_, tokens, channels = features.tokens.shape
        sizes = channels, tokens, first.embed_dims, first.operations
        controls = self._profile(list_controls(*sizes))
        self.variants = sorted([*blocks, *controls], key=lambda v: FAMILIES.index(v.family))
        if not self.plan:
            self.plan = self._make_plan(time.monotonic() - started)
            write_json(self.plan, path)
        self.plan['seeds'] = args.seeds or self.plan['seeds']

    def names(self, family: str) -> list[str]:
        """Return the names of a family's variants."""
        return [v.name for v in self.variants if v.family == family]

    # ------------------------------------------------------------- before the first training
    def _profile(self, variants: list[Variant]) -> list[Variant]:
        """Build what is wanted of some variants once; count and measure it."""
        variants = [v for v in variants if v.family in self.args.variants]
        steps = 0 if self.plan or self.args.steps else _MEASURED
        profiles = self.run('profile', [(v, steps) for v in variants])
        for variant, profile in zip(variants, profiles, strict=True):
            for name, other in self.profiles.items():
                if other.identity == profile.identity:
                    raise UserError(f"'{name}' and '{variant.name}' are the same. Fix: name one.")
            self.profiles[variant.name] = profile
        return variants

    def _make_plan(self, spent: float) -> dict[str, int]:
        """Return the best plan that fits the minutes.

        Raises:
            UserError: None does.
        """
        args, epoch = self.args, math.ceil(len(self.features.splits['train']) / BATCH)
        steps = (
            [args.steps] if args.steps else [n for n in _STEPS if n <= max(_EPOCHS * epoch, 300)]
        )
        plans = [
            dict(steps=n, seeds=k) for k in ([args.seeds] if args.seeds else _SEEDS) for n in steps
        ]
        for plan in plans:
            if args.steps or spent + self.estimate(plan) + _REPORT <= 60 * args.minutes:
                return plan
        needed = math.ceil((spent + self.estimate(plans[-1]) + _REPORT) / 60)
        slow = max(self.profiles, key=lambda name: self.profiles[name].step_seconds)
        raise UserError(
            f'--minutes {args.minutes:g} is too few: {plans[-1]["seeds"]} seeds of '
            f'{plans[-1]["steps"]} steps need about {needed}. Fix: --minutes {needed}, fewer '
            f"--tokens, or leave variants out (--variants); the slowest is '{slow}'."
        )

    def estimate(self, plan: Mapping[str, int]) -> float:
        """Return the seconds of a plan from nothing; 0 where nothing was measured."""
        # Of the ladder four rates are tried, mostly.
        trainings = (len(self.args.rates) or 4) * len(TUNING_SEEDS) + plan['seeds']
        costs = (plan['steps'] * p.step_seconds + p.fixed_seconds for p in self.profiles.values())
        return trainings * sum(costs) / self.workers

    # ------------------------------------------------------------- trainings
    def train(self) -> None:
        """Tune the rates on 'val', then train every seed with the best ones."""
        columns = '{task.description}', BarColumn(), '{task.percentage:3.0f} %'
        with Progress(*columns, TimeRemainingColumn()) as self._progress:
            self.tuning = self._tune()
            self.rates = {name: max(by, key=by.__getitem__) for name, by in self.tuning.items()}
            wanted = [(v, self.rates[v.name]) for v in self.variants]
            found = self._results(wanted, range(self.plan['seeds']), 'test')
        self.correct = {name: np.stack([c for c, _ in both]) for (name, _), both in found.items()}
        self.seconds = {name: median(s for _, s in both) for (name, _), both in found.items()}

    def is_edge(self, name: str) -> bool:
        """Return whether a variant's best rate is the smallest or largest that was tried."""
        return self.rates[name] in (min(self.tuning[name]), max(self.tuning[name]))

    def _tune(self) -> dict[str, dict[float, float]]:
        tried = {v.name: list(self.args.rates or _FIRST) for v in self.variants}
        while True:
            wanted = [(v, rate) for v in self.variants for rate in tried[v.name]]
            tuning: dict[str, dict[float, float]] = {}
            for (name, rate), both in self._results(wanted, TUNING_SEEDS, 'val').items():
                accuracy = 100 * float(np.mean([c for c, _ in both]))
                tuning.setdefault(name, {})[rate] = accuracy
            more = {} if self.args.rates else {n: _further(by) for n, by in tuning.items()}
            if not any(more.values()):
                return tuning
            tried = {name: sorted([*tried[name], *rates]) for name, rates in more.items()}

    def _results(
        self, wanted: Sequence[tuple[Variant, float]], seeds: Sequence[int], split: str
    ) -> dict[tuple[str, float], list[tuple[np.ndarray, float]]]:
        """Train what is missing; return the results of each variant and rate, by seed."""
        jobs = {
            (v.name, rate): [
                Job(v, self.profiles[v.name].identity, rate, seed, self.plan['steps'], split)
                for seed in seeds
            ]
            for v, rate in wanted
        }
        todo = [j for both in jobs.values() for j in both if self._stored(j) is None]
        # Costly ones first, so that no process waits long for another.
        todo.sort(key=lambda j: -self.profiles[j.variant.name].operations)
        what = 'tuning' if split == 'val' else 'training'
        for _ in self._progress.track(self.run('run', todo), len(todo), description=what):
            pass
        return {key: [self._stored(j) for j in both] for key, both in jobs.items()}

    def _stored(self, job: Job) -> Any:
        path = job.path(self.features)
        is_new = path.exists() and path.stat().st_mtime >= self._since
        return read_result(self.features, job) if is_new else None


def _further(accuracies: Mapping[float, float]) -> list[float]:
    """Return the next rate of the ladder where the best one that was tried is the last."""
    best = LADDER.index(max(accuracies, key=accuracies.__getitem__))
    return [rate for rate in LADDER[max(best - 1, 0) : best + 2] if rate not in accuracies]
