"""A grid: variants of a config times seeds, and the trainings that it stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm4ve.study.job import Job
from lm4ve.study.trainings.training import training_job


@dataclass(frozen=True)
class Variant:
    """One column of the comparison.

    Attributes:
        name (str): Its name in tables and plots.
        config (Path): The config that it starts from.
        options (dict): Dotted config field -> value.
    """

    name: str
    config: Path
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tune:
    """How each seed of a variant gets a value, without the test set.

    Attributes:
        fields (tuple[str]): The config fields that get the value.
        values (tuple): Tried for every variant.
        options (dict): Overrides that train on one part of the training data and
            test on another.
        seeds (tuple[int]): Those of the shared tuning, which are no seeds of the
            comparison; its scores are the mean over these.
    """

    fields: tuple[str, ...]
    values: tuple[Any, ...]
    options: dict[str, Any]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Published:
    """Scores that somebody has published, beside which a report puts those of the grid.

    Attributes:
        source (str): Where they come from, and how they were measured.
        scores (dict): Variant -> metric as the test reports it -> score, in its unit.
    """

    source: str
    scores: dict[str, dict[str, float]]

    @property
    def metrics(self) -> list[str]:
        """The metrics of all scores, in the order in which they are named first."""
        names: dict[str, None] = {}
        for scores in self.scores.values():
            names.update(dict.fromkeys(scores))
        return list(names)


@dataclass(frozen=True)
class Grid:
    """A checked grid; :func:`lm4ve.study.trainings.grid_files.load_grid` reads it.

    Attributes: the fields that ``docs/guides/ablations.md`` describes.
    """

    name: str
    metric: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    title: str
    margin: float
    subject: str = ''
    reference: str = ''
    greater_is_better: bool = True
    common: dict[str, Any] = field(default_factory=dict)
    tune: Tune | None = None
    keep_checkpoints: bool = False
    published: Published | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The planned comparisons, as (variant, against).

        The subject is compared with each other variant, or each other variant with the
        reference.
        """
        names = [variant.name for variant in self.variants]
        if self.subject:
            return [(self.subject, name) for name in names if name != self.subject]
        return [(name, self.reference) for name in names if name != self.reference]

    @property
    def stages(self) -> list[str]:
        """The stages that the grid has: 'test', and 'tune' where it tunes."""
        stages = ['test']
        if self.tune is not None:
            stages.append('tune')
        return stages

    def options(
        self, variant: Variant, stage: str, seed: int, value: Any
    ) -> dict[str, Any]:
        """Return every override of a training.

        Args:
            variant (Variant): What is trained.
            stage (str): 'tune', 'draw' or 'test'.
            seed (int): The training's seed.
            value: The tuned value; None in a grid that does not tune.
        """
        options = {**self.common, **variant.options}
        if self.tune is not None:
            for name in self.tune.fields:
                options[name] = value
            if stage != 'test':
                options.update(self.tune.options)
        options['randomness.seed'] = seed
        seeded: dict[str, Any] = _with_seed(options, seed)
        return seeded

    def job(
        self, variant: Variant, stage: str, seed: int, value: Any, processes: int = 1
    ) -> Job:
        """Return the job of one training; arguments as those of :meth:`options`.

        Args:
            processes (int): How many processes train.
        """
        return training_job(
            variant.name,
            stage,
            seed,
            value,
            variant.config,
            self.options(variant, stage, seed, value),
            self.metric,
            processes,
            self.keep_checkpoints,
        )

    def tuning(self, processes: int = 1) -> list[Job]:
        """Return every training of tuning, in the grid's order."""
        if self.tune is None:
            return []
        jobs = []
        for variant in self.variants:
            for value in self.tune.values:
                for seed in self.tune.seeds:
                    jobs.append(self.job(variant, 'tune', seed, value, processes))
        return jobs

    def draws(self, kept: Mapping[str, Sequence[Any]], processes: int = 1) -> list[Job]:
        """Return the trainings by which each seed chooses its value, in the grid's order.

        Args:
            kept (Mapping): Variant -> the values to choose from; one needs no training.
            processes (int): How many processes train.
        """
        jobs = []
        for variant in self.variants:
            values = kept.get(variant.name, ())
            if len(values) < 2:
                continue
            for value in values:
                for seed in self.seeds:
                    jobs.append(self.job(variant, 'draw', seed, value, processes))
        return jobs

    def tests(
        self, values: Mapping[tuple[str, int], Any], processes: int = 1
    ) -> list[Job]:
        """Return the trainings that are compared, in the grid's order.

        Args:
            values (Mapping): Variant and seed -> the tuned value. In a grid that tunes,
                a seed without a value has no training yet.
            processes (int): How many processes train.
        """
        jobs = []
        for variant in self.variants:
            for seed in self.seeds:
                place = (variant.name, seed)
                if self.tune is not None and place not in values:
                    continue
                value = values.get(place)
                jobs.append(self.job(variant, 'test', seed, value, processes))
        return jobs


def _with_seed(value: Any, seed: int) -> Any:
    """Replace '{seed}' by the seed; a text that is '{seed}' alone becomes a number."""
    if isinstance(value, dict):
        return {key: _with_seed(entry, seed) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_seed(entry, seed) for entry in value)
    if value == '{seed}':
        return seed
    if isinstance(value, str):
        return value.replace('{seed}', str(seed))
    return value
