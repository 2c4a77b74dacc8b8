"""Probe which layer of a language model may help an encoder, before training with each.

    python tools/analysis/probe.py CONFIG --base CONFIG_WITHOUT_BLOCK --layers 0 1 2 3 --seeds 0 1 2

For the model without a block and with each layer it prints the coherence of the gradients
of single samples (the mean cosine of all pairs) and the similarity of the tokens before the
neck and after the block (linear CKA), with 95 % intervals where there are several seeds.
"Frozen language models are gradient coherence rectifiers in vision transformers" (AAAI
2025) finds that a block helps where both are high. --scores compares both with the scores of a
grid over layers, as ``lm4ve ablate`` writes them, by Spearman's rank correlation.
"""

import argparse
import copy
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from scipy.stats import spearmanr
from torch import Tensor

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.ablation.statistics import interval
from lm4ve.cost.tables import print_table
from lm4ve.errors import UserError, check
from lm4ve.files import write_json
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.layouts import to_tokens
from lm4ve.runner.command_line import (
    build_runner,
    config_parser,
    finish_config,
    load_config,
    run_tool,
)


# ---------------------------------------------------------------------------- measures
def linear_cka(x: Tensor, y: Tensor) -> float:
    """Return the linear centered kernel alignment of two representations, in [0, 1].

    It is 1 if one is a rotation of the other, up to scale (Kornblith et al., arXiv 1905.00414,
    section 3).

    Args:
        x, y (Tensor): ``[n, p]`` and ``[n, q]``, representations of the same n things.
    """
    x, y = (t.double() - t.double().mean(dim=0) for t in (x, y))
    own = torch.linalg.norm(x.T @ x) * torch.linalg.norm(y.T @ y)
    check('the variance of the tokens', float(own), above=0)
    return float(torch.linalg.norm(x.T @ y) ** 2 / own)


def mean_cosine(vectors: Iterable[Tensor]) -> float:
    """Return the mean cosine of all pairs of vectors, in [-1 / (n - 1), 1]."""
    count, total = 0, torch.zeros(())
    for v in vectors:  # only their sum is kept: a model has millions of gradients
        count, total = count + 1, total + v.double() / v.double().norm().clamp_min(1e-300)
    return float((total @ total - count) / (count * (count - 1)))


# ---------------------------------------------------------------------------- probing
def probe(cfg: Config, layer: int | None, samples: int, steps: int) -> dict[str, Any]:
    """Train for some steps and measure the model at training samples.

    Args:
        cfg (Config): Adapted to the machine. Its ``randomness.seed`` sets weights, training and
            samples; without one the samples are those of seed 0.
        layer (int, optional): The language model's layer that is the block.
        samples (int): How many training samples.
        steps (int): Training steps before, at the config's rate without a schedule.
    """
    if layer is not None:
        block = cfg.model.neck.block
        check('model.neck.block.type', block.type.rpartition('.')[2], choices=['LLMBlock'])
        block.layers = (layer,)
    runner, seed = _build_runner(cfg, steps), (cfg.get('randomness') or {}).get('seed')
    if steps:
        runner.train()
    else:
        runner.model.init_weights()
    model, batches = runner.model.eval(), list(_batches(runner, samples, seed or 0))
    for neck in (m for m in model.modules() if getattr(m, 'follows_progress', False)):
        neck.train().set_progress(0.0)
        neck.block.eval()
    coherence = mean_cosine(_gradient(model, batch) for batch in batches)
    similarity = None if layer is None else _similarity(model, batches)
    return dict(layer=layer, seed=seed, coherence=coherence, similarity=similarity)


def _build_runner(cfg: Config, steps: int) -> Runner:
    """Build a runner for some steps, which writes no checkpoint and validates nothing."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=max(1, steps))
    cfg.param_scheduler, cfg.custom_hooks, cfg.resume = None, None, False
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hooks.checkpoint = None
    hooks.logger = ConfigDict(type='LoggerHook', interval=max(1, steps))
    cfg.log_processor = ConfigDict(by_epoch=False)
    cfg.log_level = 'WARNING'
    return build_runner(cfg)


def _batches(runner: Runner, samples: int, seed: int) -> Iterator[Any]:
    """Yield training samples, each as a batch; the same ones of a data set for a seed."""
    cfg = copy.deepcopy(runner.cfg.train_dataloader)
    cfg.update(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(cfg, seed=0)
    check('--samples', samples, least=2, most=len(loader.dataset))
    for i in np.random.default_rng(seed).permutation(len(loader.dataset))[:samples]:
        np.random.seed(int(i))
        torch.manual_seed(int(i))
        yield loader.collate_fn([loader.dataset[int(i)]])


def _gradient(model: Any, batch: Any) -> Tensor:
    """Return the gradient of a batch's loss by what trains before neck and head, ``[p]``."""
    behind = {'neck', 'head', 'cls_head'}
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    parameters = [p for n, p in trained if not behind & set(n.split('.'))]
    data = model.data_preprocessor(batch, True)
    with torch.enable_grad():
        loss, _ = model.parse_losses(model(**data, mode='loss'))
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    parts = zip(parameters, gradients, strict=True)
    gradient = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in parts])
    if not gradient.any():
        raise UserError('The gradient of the encoder is zero. --steps 50 trains a little before.')
    return gradient


@torch.no_grad()
def _similarity(model: Any, batches: Sequence[Any]) -> float:
    """Return the linear CKA of tokens before the neck and after its block."""
    (neck,) = [m for m in model.modules() if isinstance(m, LLMBlockNeck)]
    before, after = [], []

    def keep(module: LLMBlockNeck, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = module.pick(args[0] if args else kwargs['feats'])
        before.append(to_tokens(x, module.in_channels, module.layout)[0].flatten(0, 1))

    with ExitStack() as stack:
        stack.enter_context(neck.observe())
        for handle in (
            neck.register_forward_pre_hook(keep, with_kwargs=True),
            neck.block.register_forward_hook(lambda *a: after.append(a[-1].flatten(0, 1))),
        ):
            stack.callback(handle.remove)
        for batch in batches:
            model(**model.data_preprocessor(batch, True), mode='loss')
    return linear_cka(torch.cat(before).float(), torch.cat(after).float())


# ---------------------------------------------------------------------------- tables
def mean_rows(probes: pd.DataFrame) -> list[dict[str, str]]:
    """Return a row for each layer: means over the seeds and their intervals."""
    rows = []
    for layer, own in probes.groupby('layer', dropna=False, sort=False):
        row = {'layer': 'no block' if pd.isna(layer) else f'{layer:.0f}'}
        for name in ('coherence', 'similarity'):
            values = own[name].dropna()
            low, high = interval(values)
            around = f' ({low:.4f} to {high:.4f})' if len(values) > 1 else ''
            row[name] = f'{values.mean():.4f}{around}' if len(values) else ''
        rows.append(row)
    return rows


def read_scores(path: Path, metric: str | None) -> 'pd.Series[float]':
    """Return the mean score of each layer, of a results.csv with variants 'layer 0', ..."""
    table = pd.read_csv(path)
    layer = table['variant'].astype(str).str.extract(r'^layer (\d+)$')[0].astype(float)
    column = metric or next(c for c in table.columns if '/' in c)
    return table.groupby(layer)[column].mean()


def correlation_rows(probes: pd.DataFrame, scores: 'pd.Series[float]') -> list[dict[str, str]]:
    """Return Spearman's correlation of each measure, its mean over seeds, with the scores."""
    means = probes.groupby('layer')[['coherence', 'similarity']].mean()
    means = means.join(scores.rename('score'), how='inner')
    rows = []
    for name in ('coherence', 'similarity'):
        found = spearmanr(means[name], means['score'])
        correlation = f'{found.statistic:.2f}'
        row = {'measure': name, "Spearman's correlation with the scores": correlation}
        rows.append(row | {'p': f'{found.pvalue:.2f}', 'layers': str(len(means))})
    return rows


# ---------------------------------------------------------------------------- command
def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = config_parser(__doc__)
    add = parser.add_argument
    add('--base', help='config of the same model without a block')
    add('--layers', type=int, nargs='+', required=True, help='of the language model')
    add('--samples', type=int, default=64, help='training samples that are looked at')
    add('--steps', type=int, default=50, help='training steps before, without a schedule')
    seeds = "of weights, training and samples, one after another; default: the config's"
    add('--seeds', type=int, nargs='+', default=[None], help=seeds)
    add('--scores', type=Path, help='results.csv of a grid whose x is the layer')
    add('--metric', help='its column; default: the first metric')
    add('--out', type=Path, help='JSON file for the results')
    return parser.parse_args(argv)


def _config(args: argparse.Namespace, path: str, folder: str, seed: int | None) -> Config:
    given = argparse.Namespace(**vars(args))
    given.config, given.work_dir, given.launcher = path, folder, 'none'
    given.local_rank, given.no_pin_memory = 0, False
    if path == args.base:
        given.cfg_options = None
    cfg = finish_config(load_config(given), given)
    if seed is not None:
        cfg.setdefault('randomness', {})['seed'] = seed
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    scores = None if args.scores is None else read_scores(args.scores, args.metric)
    models = [(args.base, None)] if args.base else []
    models += [(args.config, layer) for layer in args.layers]
    with tempfile.TemporaryDirectory() as folder:
        probes = [
            probe(_config(args, path, folder, seed), layer, args.samples, args.steps)
            for seed in dict.fromkeys(args.seeds)
            for path, layer in models
        ]
    table = pd.DataFrame(probes)
    print_table(f'{args.samples} samples after {args.steps} steps', mean_rows(table))
    if scores is not None:
        print_table(f'Against {args.scores}', correlation_rows(table, scores))
    if args.out is not None:
        write_json(probes, args.out)


if __name__ == '__main__':
    run_tool(main)
