"""A study: how long, which rates, which seeds, and the results of all variants.

The clock decides once, before the first training: the plan that fits ``--minutes`` is
stored beside the features. Whatever is trained later follows the stored plan, so that a
study that was killed, or gets more seeds or another layer, uses all that was trained
before.
"""

import logging
import math
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

from lm4ve.errors import UserError
from lm4ve.files import read_json, write_json
from lm4ve.probing.features import Features
from lm4ve.probing.training import RECIPE, Job, Result, Run, digest, read_result
from lm4ve.probing.variants import BATCH, FAMILIES, Variant, list_blocks, list_controls

#: Learning rates: tuning begins with the middle three and goes on where the best is the
#: last.
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
#: Seeds of tuning; those of the comparison count from 0.
TUNING_SEEDS = (1000, 1001)
#: Numbers of steps and, where none is given, of seeds that a plan may have; best first.
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
_SEEDS = (8, 6, 5, 4)
#: Most passes over the pictures that a plan spends time on, steps that are measured,
#: seconds for the report, and how much slower a step is among many than those that were
#: measured.
_EPOCHS, _MEASURED, _REPORT, _SLOWER = 60, 6, 15.0, 1.2


class Study:
    """Trains what a study needs and is not stored yet.

    Args:
        features (Features): The tokens; results are stored beside them.
        args (Namespace): The flags of ``lm4ve try``.
        run (Run): Trains.
        started (float): ``time.monotonic()`` when the minutes began.

    Attributes:
        variants (dict[str, Variant]): By name, in the order of tables.
        blocks (list[str]): Names of the frozen ones.
        plan (dict[str, int]): 'steps' and 'seeds'.
        tuning (dict[str, dict[float, float]]): Variant -> rate -> mean accuracy on
            'val', per cent.
        rates (dict[str, float]): The best ones.
        correct (dict[str, np.ndarray]): What was right, bool ``[seeds, test
            pictures]``.
        accuracies (dict[str, np.ndarray]): In per cent, float64 ``[seeds]``.
        seconds (dict[str, float]): Median of a training.
    """

    def __init__(
        self, features: Features, args: Namespace, run: Run, started: float
    ) -> None:
        self.features, self.args, self.run = features, args, run
        self._since = 0.0 if args.resume else time.time()
        # Not the seeds and which layers: they may be added, and what was trained
        # counts.
        fields = 'block', 'minutes', 'steps', 'dtype', 'variants'
        parts = [
            RECIPE,
            len(args.layers),
            sorted(args.formal),
            *(getattr(args, f) for f in fields),
        ]
        path = features.folder / f'plan-{digest(parts)}.json'
        if (
            args.seeds and not path.exists()
        ):  # their number is not the default of a later run
            path = features.folder / f'plan-{digest([*parts, "seeds"])}.json'
        self.plan: dict[str, int] = _read_plan(path) if args.resume else {}
        blocks = self._profile(
            list_blocks(args.block, args.layers, args.formal, args.dtype)
        )
        *_, tokens, channels = features.shape
        sizes = channels, tokens, blocks[0].embed_dims, blocks[0].operations
        known = [*blocks, *self._profile(list_controls(*sizes))]
        known.sort(key=lambda v: FAMILIES.index(v.family))
        self.variants = {v.name: v for v in known}
        self.blocks = [v.name for v in known if v.family == 'frozen']
        names: dict[str, str] = {}
        for v in known:
            if (other := names.setdefault(v.identity, v.name)) != v.name:
                raise UserError(
                    f"'{other}' and '{v.name}' are the same. Fix: name one."
                )
        if not self.plan:
            self.plan = self._make_plan(time.monotonic() - started)
            write_json(self.plan, path)
        self.plan['seeds'] = args.seeds or self.plan['seeds']

    # -------------------------------------------------------- before the first training
    def _profile(self, variants: list[Variant]) -> list[Variant]:
        """Build what is wanted of some variants once; count and measure it."""
        wanted = [v for v in variants if v.family in self.args.variants]
        steps = 0 if self.plan or self.args.steps else _MEASURED
        return [*self.run('profile', wanted, [steps] * len(wanted))]

    def _make_plan(self, spent: float) -> dict[str, int]:
        """Return the best plan that fits the minutes.

        Raises:
            UserError: None does.
        """
        args, epoch = (
            self.args,
            math.ceil(len(self.features.data.splits['train']) / BATCH),
        )
        most = max(_EPOCHS * epoch, 300)
        steps = [args.steps] if args.steps else [n for n in _STEPS if n <= most]
        seeds = [args.seeds] if args.seeds else _SEEDS
        for plan in [dict(steps=n, seeds=k) for k in seeds for n in steps]:
            if args.steps or self._minutes(plan, spent) <= args.minutes:
                return plan
        needed = math.ceil(self._minutes(plan, spent))
        slow = max(self.variants.values(), key=lambda v: v.step_seconds).name
        raise UserError(
            f'--minutes {args.minutes:g} is too few: {plan["seeds"]} seeds of {plan["steps"]} '
            f'steps need about {needed}. Fix: --minutes {needed}, fewer --tokens, or leave '
            f"variants out (--variants); the slowest is '{slow}'."
        )

    def _minutes(self, plan: Mapping[str, int], spent: float) -> float:
        """Return the minutes of a plan from nothing, the seconds already spent included."""
        # Of the ladder four rates are tried, sometimes five.
        trainings = (len(self.args.rates) or 4.5) * len(TUNING_SEEDS) + plan['seeds']
        known = self.variants.values()
        seconds = sum(plan['steps'] * v.step_seconds + v.fixed_seconds for v in known)
        seconds *= _SLOWER * trainings / max(self.args.workers, 1)
        return (spent + seconds + _REPORT) / 60

    # ------------------------------------------------------------- trainings
    def train(self) -> None:
        """Tune the rates on 'val', then train every seed with the best ones."""
        self.tuning = self._tune()
        self.rates = {
            name: max(by, key=by.__getitem__) for name, by in self.tuning.items()
        }
        found = self._results([*self.rates.items()], range(self.plan['seeds']), 'test')
        self.correct = {
            name: np.stack([c for c, _ in both]) for (name, _), both in found.items()
        }
        self.accuracies = {
            name: 100 * right.mean(1) for name, right in self.correct.items()
        }
        self.seconds = {
            name: median(s for _, s in both) for (name, _), both in found.items()
        }

    def is_edge(self, name: str) -> bool:
        """Return whether a variant's best rate is the smallest or largest that was tried."""
        return self.rates[name] in (min(self.tuning[name]), max(self.tuning[name]))

    def _tune(self) -> dict[str, dict[float, float]]:
        """Try rates until the best one of each variant has neighbours or ends the ladder."""
        tuning: dict[str, dict[float, float]] = {name: {} for name in self.variants}
        while wanted := [
            (n, rate) for n, by in tuning.items() for rate in self._untried(by)
        ]:
            for (name, rate), both in self._results(
                wanted, TUNING_SEEDS, 'val'
            ).items():
                tuning[name][rate] = 100 * float(np.mean([c for c, _ in both]))
            # In order, since of equal rates the first one wins.
            for name, by in tuning.items():
                tuning[name] = {r: by[r] for r in self.args.rates or LADDER if r in by}
        return tuning

    def _untried(self, accuracies: Mapping[float, float]) -> list[float]:
        """Return the rates to try next: those given, or the best one's neighbours on the ladder."""
        rates = self.args.rates
        if not rates:
            best = max(accuracies, key=accuracies.__getitem__, default=LADDER[3])
            rates = LADDER[max(LADDER.index(best) - 1, 0) : LADDER.index(best) + 2]
        return [rate for rate in rates if rate not in accuracies]

    def _results(
        self, wanted: Sequence[tuple[str, float]], seeds: Sequence[int], split: str
    ) -> dict[tuple[str, float], list[Result]]:
        """Train what is missing; return the results of each variant and rate, by seed."""
        steps = self.plan['steps']
        jobs = {
            (name, rate): [
                Job(self.variants[name], rate, seed, steps, split) for seed in seeds
            ]
            for name, rate in wanted
        }
        todo = [j for both in jobs.values() for j in both if self._stored(j) is None]
        # Costly ones first, so that no process waits long for another.
        todo.sort(key=lambda j: -j.variant.operations)
        what = 'tuning' if split == 'val' else 'training'
        for _ in tqdm(self.run('run', todo), what, len(todo), disable=not todo):
            pass
        return {key: [self._stored(j) for j in both] for key, both in jobs.items()}

    def _stored(self, job: Job) -> Any:
        return read_result(self.features, job, self._since)


def _read_plan(path: Path) -> dict[str, int]:
    """Return a stored plan, or an empty one where there is none or it is damaged."""
    stored = read_json(path)
    if isinstance(stored, dict) and stored.keys() == {'steps', 'seeds'}:
        steps, seeds = stored['steps'], stored['seeds']
        if type(steps) is int and type(seeds) is int and steps >= 1 and seeds >= 2:
            return stored
    if path.exists():
        text = f"'{path}' is damaged: the study is planned anew."
        print_log(text, logger='current', level=logging.WARNING)
    return {}
