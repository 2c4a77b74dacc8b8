"""Score the baselines that need no training on a config's validation set.

python tools/motion/baselines.py configs/motion/vectornet-demo_none_sim.py
"""

from mmengine.evaluator import Evaluator
from tqdm import tqdm

from lm4ve.files import write_json
from lm4ve.registry import DATASETS
from lm4ve.runner.command_line import CONFIG, build_parser, read_config, run_tool
from lm4ve.runner.tables import print_table
from lm4ve.tasks import require_task
from lm4ve.tasks.motion.models.baselines import (
    NearestNeighbor,
    constant_velocity,
    kalman_filter,
)


def score(forecast, dataset, evaluator_cfg, name: str) -> dict:
    """Score one baseline by the config's own evaluator."""
    evaluator = Evaluator(evaluator_cfg)
    for scene in tqdm(
        map(dataset.scene, range(len(dataset))), name, len(dataset), disable=None
    ):
        trajectories, probabilities = forecast(scene)
        sample = dict(
            scene=scene, trajectories=trajectories, probabilities=probabilities
        )
        evaluator.process([sample])
    return evaluator.evaluate(len(dataset))


def main(argv: list[str] | None = None) -> None:
    parser = build_parser(__doc__, CONFIG)
    parser.add_argument('--out', help='JSON file for the results')
    args = parser.parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    require_task(cfg, 'motion')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    known = DATASETS.build(cfg.train_dataloader.dataset)
    baselines = {
        'constant velocity': constant_velocity,
        'Kalman filter': kalman_filter,
        'nearest neighbors': NearestNeighbor(map(known.scene, range(len(known)))),
    }
    results = {
        name: score(b, dataset, cfg.val_evaluator, name)
        for name, b in baselines.items()
    }
    rows = [
        {'': name, **{c: f'{v:.3f}' for c, v in r.items()}}
        for name, r in results.items()
    ]
    print_table(f'{len(dataset)} scenes', rows)
    if args.out:
        write_json(results, args.out)


if __name__ == '__main__':
    run_tool(main)
