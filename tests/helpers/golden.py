"""What a shipped config gives: measured in a short run, stored, and compared.

A rewrite of form changes nothing here. Text (fields of the config, names and shapes in
the checkpoint, records of frozen weights) must be equal. Numbers depend on the CPU,
whose kernels add in their own order; they must lie within a bound that follows from the
dtypes and sizes of the model (:mod:`tests.helpers.closeness`).

Each task has two files in ``tests/zoo/golden``: ``<task>.json`` with what a person
reads in a diff, and ``<task>.listings.json.xz`` with long lists.
"""

import dataclasses
import difflib
import hashlib
import json
import lzma
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lm4ve.blocks.record_text import KEY
from lm4ve.runner.command_line import build_runner
from lm4ve.runner.config import read_config
from tests.helpers.closeness import (
    products_of,
    rounding_bound,
    rounding_bound_of,
    sums_of,
)
from tests.helpers.shrink import Shrinker
from tests.helpers.tasks import FOLDERS, ROOT

FOLDER = ROOT / 'tests/zoo/golden'
#: How many training steps are stored; the rest of the epoch runs all the same.
STEPS = 3
SEED = 7
#: Scores that differ by less are the same; then metrics must be the same, too.
SAME = 1e-6


@dataclasses.dataclass
class Results:
    """What a config gives.

    Attributes:
        config: The shipped config as ``field: value``, with all that it inherits.
        state: The saved state dict as ``name: shape dtype``.
        records: The saved records of frozen weights and of necks, as their JSON text.
        normal_draws: A digest of random numbers of this CPU. Where it differs, random
            weights differ in their last bits, and so do their fingerprints.
        products: A digest of matrix products of this CPU.
        losses: Of each of the first steps, what the model logs.
        gradients: The norm of each parameter's gradient in the first step.
        scores: Of the first batch of the validation after training: the floating-point
            fields of the predictions, each as its norm and its product with a unit
            vector.
        metrics: What the validation after training logs.
    """

    config: list[str]
    state: list[str]
    records: dict[str, str]
    normal_draws: str
    products: str
    losses: list[dict[str, float]]
    gradients: dict[str, float]
    scores: dict[str, list[float]]
    metrics: dict[str, float]


#: The fields of :class:`Results` that are too long to be read in a diff.
LISTINGS = ('config', 'state', 'gradients')


@dataclasses.dataclass
class Bounds:
    """How far numbers of another CPU may lie apart.

    Attributes:
        step: Relative, of a forward pass.
        step_alike: The same on a CPU that multiplies as the one that wrote the results:
            products of 16 bits give the same bits there, and only the place of tensors
            in memory changes sums of 32 bits.
        gradient: Of a gradient that is zero but for rounding, relative to the norm of
            all gradients.
        steps: How many steps the whole training had.
    """

    step: float
    step_alike: float
    gradient: float
    steps: int

    def after(self, steps: int) -> float:
        """Return the relative bound of a forward pass after some steps.

        Each step adds the errors of a forward and of a backward pass, which has two
        products for each one of the forward pass.
        """
        return self.step * (1 + 3 * steps)


def bounds_of(model: nn.Module, steps: int, positions: int) -> Bounds:
    """Return the bounds of a model that trained some steps.

    The bias before a normalization has a gradient of zero, which is computed as a sum
    over ``positions``.
    """
    products = products_of(model)
    largest = max(rounding_bound(dtype, [size]) for size, dtype in products)
    gradient = largest + rounding_bound(torch.float32, [positions])
    alike = rounding_bound(torch.float32, sums_of(model))
    return Bounds(rounding_bound_of(model), alike, gradient, steps)


def digest_of_products() -> str:
    """Return a digest of matrix products, which differs where a CPU adds in another order."""
    matrix = torch.arange(64 * 64).remainder(97).reshape(64, 64) / 97
    digest = hashlib.sha256()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        product = matrix.to(dtype) @ matrix.to(dtype).T
        digest.update(product.float().numpy().tobytes())
    return digest.hexdigest()[:16]


class Watch(Hook):
    """Keeps the numbers of :class:`Results` while a runner trains and validates.

    ``positions`` is how many pixels or voxels of a batch a convolution's gradient sums,
    at most.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.positions = 0
        self.losses: list[dict[str, float]] = []
        self.gradients: dict[str, float] = {}
        self.scores: dict[str, list[float]] = {}
        self.metrics: dict[str, float] = {}

    def before_train(self, runner: Runner) -> None:
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                self._watch_gradient(name, parameter)
        for part in runner.model.modules():
            if isinstance(part, _ConvNd):
                part.register_forward_hook(self._count_positions)

    def _count_positions(self, conv: _ConvNd, inputs: Any, output: Tensor) -> None:
        self.positions = max(self.positions, output.numel() // conv.out_channels)

    def _watch_gradient(self, name: str, parameter: nn.Parameter) -> None:
        def keep_first(p: nn.Parameter) -> None:
            if name not in self.gradients:
                self.gradients[name] = rounded(p.grad.double().norm())

        parameter.register_post_accumulate_grad_hook(keep_first)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if len(self.losses) == STEPS:
            return
        losses = {}
        for name, value in outputs.items():
            if 'loss' in name:
                losses[name] = rounded(value.detach())
        self.losses.append(losses)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == 0:
            self.scores = summaries(outputs)

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = {k: rounded(v) for k, v in metrics.items()}


def measure(shrinker: Shrinker, name: str, work_dir: Path) -> tuple[Results, Bounds]:
    """Train a shrunk config for an epoch, validate it, and return what it gives.

    Args:
        shrinker (Shrinker): Of the config's task.
        name (str): The config file, below the task's folder.
        work_dir (Path): Of the run.
    """
    shipped = read_config(FOLDERS[shrinker.task] / name, set_scope=False)
    cfg = shrinker.load(name, work_dir)
    cfg.randomness = dict(seed=SEED)
    runner = build_runner(cfg)
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    saved = torch.load(work_dir / 'epoch_1.pth', weights_only=True)['state_dict']
    draws = torch.randn(4096, generator=torch.Generator().manual_seed(SEED))
    results = Results(
        config=[*flat_lines(shipped.to_dict())],
        state=[f'{k}: {shape_of(k, v)}' for k, v in sorted(saved.items())],
        records=records_of(saved, shrinker.folder),
        normal_draws=hashlib.sha256(draws.numpy().tobytes()).hexdigest()[:16],
        products=digest_of_products(),
        losses=watch.losses,
        gradients=watch.gradients,
        scores=watch.scores,
        metrics=watch.metrics,
    )
    return results, bounds_of(runner.model, runner.iter, watch.positions)


def rounded(value: Any) -> float:
    """Return a number with nine digits, in which a float32 is exact."""
    return float(f'{float(value):.9g}')


def flat_lines(value: Any, place: str = '') -> Iterator[str]:
    """Yield ``field: value`` for each leaf of a config, sorted by the fields' names."""
    if isinstance(value, dict) and value:
        for key in sorted(value, key=str):
            yield from flat_lines(value[key], f'{place}.{key}' if place else str(key))
    elif isinstance(value, (list, tuple)) and value:
        for i, item in enumerate(value):
            yield from flat_lines(item, f'{place}[{i}]')
    else:
        yield f'{place}: {value!r}'


def is_record(key: str) -> bool:
    """Return whether a key of a state dict holds a record, JSON text as bytes."""
    return key.rpartition('.')[2] == KEY


def shape_of(key: str, tensor: Tensor) -> str:
    """Return a tensor's shape and dtype; a record's length is that of its text."""
    if is_record(key):
        return 'record'
    return f'{tuple(tensor.shape)} {tensor.dtype}'


def records_of(state: dict[str, Tensor], folder: Path) -> dict[str, str]:
    """Return the text of a state dict's records, without the folder of this run."""
    records = {}
    for key, value in sorted(state.items()):
        if is_record(key):
            text = bytes(value.tolist()).decode()
            records[key] = text.replace(str(folder), '<folder>')
    return records


def summaries(outputs: Any) -> dict[str, list[float]]:
    """Summarize the floating-point fields of predictions.

    Returns:
        dict[str, list[float]]: Field -> the norm of its numbers, and their product with
        a vector of norm 1, which moves by no more than the norm of their error.
    """
    parts: dict[str, list[Tensor]] = {}
    for field, tensor in tensors_in(outputs):
        parts.setdefault(field, []).append(tensor.detach().double().flatten())
    found = {}
    for field, tensors in sorted(parts.items()):
        numbers = torch.cat(tensors)
        numbers = numbers[numbers.isfinite()]
        direction = torch.arange(len(numbers), dtype=torch.float64).cos()
        direction /= max(direction.norm(), 1e-12)
        found[field] = [rounded(numbers.norm()), rounded(numbers @ direction)]
    return found


def tensors_in(value: Any, field: str = '') -> Iterator[tuple[str, Tensor]]:
    """Yield the floating-point tensors of data samples, dicts and lists by their fields."""
    if isinstance(value, (dict, BaseDataElement)):
        for key, item in value.items():
            yield from tensors_in(item, f'{field}.{key}' if field else key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item, field)
    elif isinstance(value, (float, np.ndarray)):
        yield from tensors_in(torch.as_tensor(value), field)
    elif isinstance(value, Tensor) and value.is_floating_point():
        yield field, value


class Store:
    """The stored results of a task's configs.

    Args:
        task (str): The name of the task.
    """

    def __init__(self, task: str) -> None:
        self.readable = FOLDER / f'{task}.json'
        self.listings = FOLDER / f'{task}.listings.json.xz'

    def names(self) -> list[str]:
        """Return the configs that have stored results."""
        return sorted(self._read_readable())

    def read(self, name: str) -> Results:
        """Return the stored results of a config."""
        return Results(**self._read_readable()[name], **self._read_listings()[name])

    def write(self, name: str, results: Results) -> None:
        """Store the results of a config, beside those of the others."""
        fields = dataclasses.asdict(results)
        listings = self._read_listings()
        listings[name] = {field: fields.pop(field) for field in LISTINGS}
        readable = self._read_readable()
        readable[name] = fields
        text = json.dumps(readable, indent=1, sort_keys=True)
        self.readable.write_text(f'{text}\n')
        text = json.dumps(listings, sort_keys=True)
        self.listings.write_bytes(lzma.compress(text.encode()))

    def _read_readable(self) -> dict[str, Any]:
        if not self.readable.exists():
            return {}
        return json.loads(self.readable.read_text())

    def _read_listings(self) -> dict[str, Any]:
        if not self.listings.exists():
            return {}
        return json.loads(lzma.decompress(self.listings.read_bytes()))


class ConfigStore:
    """The stored fields of files that are read here and not trained, by a name each."""

    def __init__(self) -> None:
        self.path = FOLDER / 'resolved.listings.json.xz'

    def read(self) -> dict[str, list[str]]:
        """Return the lines of all files, as :func:`flat_lines` yields them."""
        if not self.path.exists():
            return {}
        return json.loads(lzma.decompress(self.path.read_bytes()))

    def write(self, name: str, lines: list[str]) -> None:
        """Store the lines of a file, beside those of the others."""
        listings = self.read()
        listings[name] = lines
        text = json.dumps(listings, sort_keys=True)
        self.path.write_bytes(lzma.compress(text.encode()))


def differences(found: Results, stored: Results, bounds: Bounds) -> list[str]:
    """Return what a config gives that differs from what is stored, a line each."""
    if found.products == stored.products:
        bounds = dataclasses.replace(bounds, step=bounds.step_alike)
    return [
        *differing_lines('config', found.config, stored.config),
        *differing_lines('state', found.state, stored.state),
        *differing_records(found, stored),
        *differing_losses(found.losses, stored.losses, bounds),
        *differing_gradients(found.gradients, stored.gradients, bounds),
        *differing_scores(found.scores, stored.scores, bounds),
        *differing_metrics(found, stored),
    ]


def differing_lines(field: str, found: list[str], stored: list[str]) -> Iterator[str]:
    """Yield the lines that are new (+) or gone (-)."""
    for line in difflib.unified_diff(stored, found, lineterm='', n=0):
        if not line.startswith(('---', '+++', '@@')):
            yield f'{field} {line}'


def differing_records(found: Results, stored: Results) -> Iterator[str]:
    """Yield the records that differ in any byte."""
    own, expected = found.records, stored.records
    if found.normal_draws != stored.normal_draws:
        own = without_random_fingerprints(own)
        expected = without_random_fingerprints(expected)
    for key in sorted(own.keys() | expected.keys()):
        if own.get(key) != expected.get(key):
            yield f'record {key}: {expected.get(key)} became {own.get(key)}'


def without_random_fingerprints(records: dict[str, str]) -> dict[str, str]:
    """Leave out the fingerprints of weights that this machine has drawn.

    The weights of packages are files, which are the same everywhere.
    """
    kept = {}
    for key, text in records.items():
        record = json.loads(text)
        is_file = str(record.get('source', '')).startswith('package:')
        if 'fingerprint' in record and not (is_file and record.get('pretrained')):
            text = text.replace(record['fingerprint'], '<drawn here>')
        kept[key] = text
    return kept


def differing_losses(
    found: list[dict[str, float]], stored: list[dict[str, float]], bounds: Bounds
) -> Iterator[str]:
    """Yield the losses that lie further apart than the bound of their step."""
    if len(found) != len(stored):
        yield f'losses: {len(stored)} steps became {len(found)}'
        return
    for step, (own, expected) in enumerate(zip(found, stored, strict=True)):
        tolerance = bounds.after(step) * abs(expected.get('loss', 0))
        yield from differing_numbers(f'step {step}', own, expected, tolerance)


def differing_gradients(
    found: dict[str, float], stored: dict[str, float], bounds: Bounds
) -> Iterator[str]:
    """Yield the parameters whose gradient differs by more than rounding."""
    if found.keys() != stored.keys():
        yield f'gradients of other parameters: {found.keys() ^ stored.keys()}'
        return
    total = math.hypot(*stored.values())
    for name, expected in stored.items():
        tolerance = bounds.after(1) * expected + bounds.gradient * total
        if not abs(found[name] - expected) <= tolerance:
            yield f'gradient of {name}: {expected} became {found[name]}, bound {tolerance:.1e}'


def differing_scores(
    found: dict[str, list[float]], stored: dict[str, list[float]], bounds: Bounds
) -> Iterator[str]:
    """Yield the fields of predictions that differ by more than the bound."""
    if found.keys() != stored.keys():
        yield f'other fields of predictions: {found.keys() ^ stored.keys()}'
        return
    for field, expected in stored.items():
        tolerance = bounds.after(bounds.steps) * expected[0]
        own = dict(norm=found[field][0], product=found[field][1])
        numbers = dict(norm=expected[0], product=expected[1])
        yield from differing_numbers(f'scores {field}', own, numbers, tolerance)


def differing_numbers(
    field: str, found: dict[str, float], stored: dict[str, float], tolerance: float
) -> Iterator[str]:
    """Yield the numbers of a group that have one tolerance."""
    if found.keys() != stored.keys():
        yield f'{field}: {sorted(stored)} became {sorted(found)}'
        return
    for key, expected in stored.items():
        if not abs(found[key] - expected) <= tolerance:
            yield f'{field} {key}: {expected} became {found[key]}, bound {tolerance:.1e}'


def differing_metrics(found: Results, stored: Results) -> Iterator[str]:
    """Yield the metrics that differ.

    A metric of few samples jumps where a score changes its last digits and two
    predictions change places. So its value is compared where the scores are the same.
    """
    if found.metrics.keys() != stored.metrics.keys():
        yield f'metrics: {sorted(stored.metrics)} became {sorted(found.metrics)}'
        return
    for field, expected in stored.scores.items():
        own = found.scores.get(field, [math.nan, math.nan])
        if not np.allclose(own, expected, rtol=0, atol=SAME * expected[0]):
            return
    for key, expected in stored.metrics.items():
        if not math.isclose(found.metrics[key], expected, rel_tol=100 * SAME):
            yield f'metric {key}: {expected} became {found.metrics[key]}'
