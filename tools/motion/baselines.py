"""Score the baselines that need no training on a config's validation set.

python tools/motion/baselines.py configs/motion/vectornet-demo_none_sim.py
"""

import argparse
from collections.abc import Sequence

from mmengine.config import DictAction
from mmengine.evaluator import Evaluator
from rich.console import Console
from rich.progress import track
from rich.table import Table

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.engine.command_line import run_tool
from lm4ve.engine.config import read_config
from lm4ve.engine.files import write_json
from lm4ve.registry import DATASETS
from lm4ve.tasks.motion.baselines import ConstantVelocity, Kalman, NearestNeighbor
from lm4ve.tasks.motion.datasets.cache import SceneCache


def score(forecast, dataset, evaluator_cfg, name: str) -> dict:
    """Metrics of one baseline, by the config's own evaluator."""
    evaluator = Evaluator(evaluator_cfg)
    evaluator.dataset_meta = dataset.metainfo
    for i in track(range(len(dataset)), name):
        scene = dataset.scene(i)
        trajectories, probabilities = forecast(scene)
        evaluator.process(
            [dict(scene=scene, trajectories=trajectories, probabilities=probabilities)]
        )
    return evaluator.evaluate(len(dataset))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--out', help='JSON file for the results')
    parser.add_argument(
        '--train-cache',
        help="scenes for the nearest neighbours; default: the config's training set",
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    if args.train_cache:
        train = SceneCache(args.train_cache)
    else:
        known = DATASETS.build(cfg.train_dataloader.dataset)
        train = (known.scene(i) for i in range(len(known)))
    baselines = {
        'constant velocity': ConstantVelocity(),
        'Kalman filter': Kalman(),
        'nearest neighbours': NearestNeighbor(train),
    }
    results = {name: score(b, dataset, cfg.val_evaluator, name) for name, b in baselines.items()}
    columns = [c for c in next(iter(results.values())) if 'scenes' not in c]
    table = Table(title=f'{len(dataset)} scenes')
    for c in ('', *columns):
        table.add_column(c.rpartition('/')[2], justify='right' if c else 'left')
    for name, r in results.items():
        table.add_row(name, *(f'{r[c]:.3f}' for c in columns))
    Console(width=120).print(table)
    if args.out:
        write_json(results, args.out)


if __name__ == '__main__':
    run_tool(main)
