"""Probe which layer of a language model may help an encoder, before training with each.

    python tools/analysis/probe.py CONFIG --base CONFIG_WITHOUT_BLOCK --layers 0 1 2 3
    --seeds 0 1 2

For the model without a block and with each layer it prints the coherence of the
gradients of single samples (the mean cosine of all pairs) and the similarity of the
tokens before the neck and after the block (linear CKA), with 95 % intervals where there
are several seeds. "Frozen language models are gradient coherence rectifiers in vision
transformers" (AAAI 2025) finds that a block helps where both are high. --scores
compares both with the scores of a grid over layers, as ``lm4ve ablate`` writes them, by
Spearman's rank correlation.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Before torch, whose threads read what this sets.
import lm4ve.commands  # noqa: F401  # isort: skip

import numpy as np
import pandas as pd
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from scipy.stats import spearmanr, ttest_1samp
from torch import Tensor

from lm4ve.errors import UserError, check
from lm4ve.files import write_json
from lm4ve.necks import LLMBlockNeck
from lm4ve.runner import command_line as cli
from lm4ve.runner.tables import print_table

MEASURES = ['coherence', 'similarity']


# ---------------------------------------------------------------------------- measures
def linear_cka(x: Tensor, y: Tensor) -> float:
    """Return the linear centered kernel alignment of two representations, in [0, 1].

    It is 1 if one is a rotation of the other, up to scale (Kornblith et al., arXiv
    1905.00414, section 3).

    Args:
        x, y (Tensor): ``[n, p]`` and ``[n, q]``, representations of the same n things.
    """
    x = x.double()
    x = x - x.mean(dim=0)
    y = y.double()
    y = y - y.mean(dim=0)
    own = torch.linalg.norm(x.T @ x) * torch.linalg.norm(y.T @ y)
    check('the variance of the tokens', float(own), above=0)
    return float(torch.linalg.norm(x.T @ y) ** 2 / own)


def mean_cosine(vectors: Iterable[Tensor]) -> float:
    """Return the mean cosine of all pairs of vectors, in [-1 / (n - 1), 1].

    The sum of n unit vectors, squared, is the sum of the cosines of all n * n ordered
    pairs. Of these, the n pairs of a vector with itself are 1 each and do not count.

    Args:
        vectors (Iterable[Tensor]): n vectors of one length, at least two.
    """
    count = 0
    total = torch.zeros(())
    for vector in vectors:  # only their sum is kept: a model has millions of gradients
        vector = vector.double()
        total = total + vector / vector.norm().clamp_min(1e-300)
        count += 1
    sum_of_cosines = total @ total - count
    num_pairs = count * (count - 1)
    return float(sum_of_cosines / num_pairs)


# ---------------------------------------------------------------------------- probing
def probe(cfg: Config, layer: int | None, samples: int, steps: int) -> dict[str, Any]:
    """Train for some steps and measure the model at training samples.

    Args:
        cfg (Config): Adapted to the machine. Its ``randomness.seed`` sets weights,
            training and samples; without one the samples are those of seed 0.
        layer (int, optional): The language model's layer that is the block.
        samples (int): How many training samples.
        steps (int): Training steps before, at the config's rate without a schedule.
    """
    if layer is not None:
        cfg.model.neck.block.layers = (layer,)
    seed = (cfg.get('randomness') or {}).get('seed')
    _shorten(cfg, max(1, steps))
    runner = cli.build_runner(cfg)
    if steps:
        runner.train()
    else:
        runner.model.init_weights()
    model = runner.model.eval()
    batches = _batches(runner, samples, seed or 0)
    for module in model.modules():
        if getattr(module, 'follows_progress', False):  # a neck, as training begins
            module.train().set_progress(0.0)
            module.block.eval()
    coherence = mean_cosine(_gradient(model, batch) for batch in batches)
    similarity = None
    if layer is not None:
        similarity = _similarity(model, batches)
    return dict(layer=layer, seed=seed, coherence=coherence, similarity=similarity)


def _shorten(cfg: Config, steps: int) -> None:
    """Let a config train for some steps, without schedule, checkpoints and evaluation."""
    for split in ('val', 'test'):
        for field in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{split}_{field}'] = None
    cfg.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=steps)
    cfg.param_scheduler = None
    cfg.custom_hooks = None
    cfg.resume = False
    logger = ConfigDict(type='LoggerHook', interval=steps)
    cfg.default_hooks = ConfigDict(checkpoint=None, logger=logger)
    cfg.log_processor = ConfigDict(by_epoch=False)
    cfg.log_level = 'WARNING'
    # MMEngine's visualizers are found by name, which has the second only.
    cfg.experiment_name = f'probe-{time.time_ns()}'


def _batches(runner: Runner, samples: int, seed: int) -> list[Any]:
    """Return training samples, each as a batch; the same ones of a data set for a seed."""
    cfg = dict(runner.cfg.train_dataloader, num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(cfg, 0)
    count = len(loader.dataset)
    check('--samples', samples, least=2, most=count)
    order = np.random.default_rng(seed).permutation(count)
    batches = []
    for i in order[:samples].tolist():
        np.random.seed(i)
        torch.manual_seed(i)
        batches.append(loader.collate_fn([loader.dataset[i]]))
    return batches


def _gradient(model: Any, batch: Any) -> Tensor:
    """Return the gradient of a batch's loss by what trains before neck and head, ``[p]``."""
    after_encoder = {'neck', 'head', 'cls_head'}
    parameters = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and after_encoder.isdisjoint(name.split('.')):
            parameters.append(parameter)
    data = model.data_preprocessor(batch, True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    gradient = torch.cat([g.flatten() for g in gradients])
    if not gradient.any():
        raise UserError(
            'The gradient of the encoder is zero. --steps 50 trains a little before.'
        )
    return gradient


@torch.no_grad()
def _similarity(model: Any, batches: Sequence[Any]) -> float:
    """Return the linear CKA of tokens before the neck and after its block."""
    (neck,) = [m for m in model.modules() if isinstance(m, LLMBlockNeck)]
    before: list[Tensor] = []
    after: list[Tensor] = []
    neck.mapper_in.register_forward_hook(
        lambda _, args, out: before.append(args[0].flatten(0, 1))
    )
    neck.block.register_forward_hook(
        lambda _, args, out: after.append(out.flatten(0, 1))
    )
    with neck.observe():
        for batch in batches:
            model(**model.data_preprocessor(batch, True), mode='loss')
    return linear_cka(torch.cat(before).float(), torch.cat(after).float())


# ---------------------------------------------------------------------------- tables
def mean_rows(probes: pd.DataFrame) -> list[dict[str, str]]:
    """Return a row for each layer: means over the seeds and their intervals."""
    rows = []
    for layer, own in probes.groupby('layer', dropna=False, sort=False):
        row = {'layer': 'no block' if pd.isna(layer) else f'{layer:.0f}'}
        for name in MEASURES:
            row[name] = _mean_with_interval(own[name].dropna())
        rows.append(row)
    return rows


def _mean_with_interval(values: pd.Series) -> str:
    """Return the mean of a measure over seeds as text, with its interval if there are several."""
    if values.empty:
        return ''
    mean = f'{values.mean():.4f}'
    if len(values) == 1:
        return mean
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    return f'{mean} ({interval.low:.4f} to {interval.high:.4f})'


def correlation_rows(probes: pd.DataFrame, path: Path) -> list[dict[str, str]]:
    """Return Spearman's correlation of each measure, its mean over seeds, with the scores.

    The scores are the means of the first metric in a results.csv with variants 'layer
    0', ...
    """
    table = pd.read_csv(path)
    layer = table['variant'].astype(str).str.extract(r'^layer (\d+)$')[0].astype(float)
    column = next(c for c in table.columns if '/' in c)
    scores = table.groupby(layer)[column].mean().rename('score')
    means = probes.groupby('layer')[MEASURES].mean().join(scores, how='inner')
    rows = []
    for name in MEASURES:
        found = spearmanr(means[name], means['score'])
        row = {
            'measure': name,
            f"Spearman's correlation with {column}": f'{found.statistic:.2f}',
            'p': f'{found.pvalue:.2f}',
            'layers': str(len(means)),
        }
        rows.append(row)
    return rows


# ---------------------------------------------------------------------------- command
def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.build_parser(__doc__, cli.CONFIG)
    add = parser.add_argument
    add('--base', help='config of the same model without a block')
    add('--layers', type=int, nargs='+', required=True, help='of the language model')
    add('--samples', type=int, default=64, help='training samples that are looked at')
    add(
        '--steps',
        type=int,
        default=50,
        help='training steps before, without a schedule',
    )
    add('--seeds', type=int, nargs='+', default=[None], help="default: the config's")
    add('--scores', type=Path, help='results.csv of a grid whose x is the layer')
    add('--out', type=Path, help='JSON file for the results')
    args = parser.parse_args(argv)
    models = []
    if args.base:
        models.append((args.base, None, None))
    for layer in args.layers:
        models.append((args.config, args.cfg_options, layer))
    probes = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for path, options, layer in models:
                given = argparse.Namespace(
                    config=path,
                    cfg_options=options,
                    work_dir=folder,
                    launcher='none',
                    local_rank=0,
                    no_pin_memory=False,
                )
                cfg = cli.final_config(given)
                if seed is not None:
                    cfg.setdefault('randomness', {})['seed'] = seed
                probes.append(probe(cfg, layer, args.samples, args.steps))
    table = pd.DataFrame(probes)
    print_table(f'{args.samples} samples after {args.steps} steps', mean_rows(table))
    if args.scores is not None:
        rows = correlation_rows(table, args.scores)
        print_table(f'Against {args.scores}', rows)
    if args.out is not None:
        write_json(probes, args.out)


if __name__ == '__main__':
    cli.run_tool(main)
