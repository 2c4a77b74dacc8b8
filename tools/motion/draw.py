"""Draw a grid of scenes with a model's forecasts, or a baseline's, as one PNG.

python tools/motion/draw.py CONFIG grid.png --checkpoint CHECKPOINT --scenes 6
"""

import torch

from lm4ve.draw.figures import save_figure
from lm4ve.registry import DATASETS, FUNCTIONS
from lm4ve.runner.command_line import build_parser, read_config, run_tool
from lm4ve.runner.flags import CONFIG, EVALUATE
from lm4ve.tasks import require_task
from lm4ve.tasks.base.building import build_model
from lm4ve.tasks.motion.models.baselines import constant_velocity
from lm4ve.tasks.motion.visualization import scene_grid


def main(argv: list[str] | None = None) -> None:
    parser = build_parser(__doc__, {**CONFIG, **EVALUATE})
    parser.add_argument('out', help='PNG')
    parser.add_argument('--checkpoint', help='default: constant velocity')
    parser.add_argument('--scenes', type=int, default=6)
    parser.add_argument('--every', type=int, default=1, help='draw every n-th')
    parser.add_argument('--columns', type=int, default=3)
    parser.add_argument('--extent', type=float, default=45.0, help='meters')
    args = parser.parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    require_task(cfg, 'motion')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    rows = range(0, len(dataset), args.every)[: args.scenes]
    if args.checkpoint:
        model = build_model(
            cfg, args.checkpoint, args.allow_partial, args.strict_config
        )[0].eval()
        collate = FUNCTIONS.get(cfg.test_dataloader.collate_fn.type)
        with torch.no_grad():
            samples = model.test_step(collate([dataset[i] for i in rows]))
    else:
        found = [
            (scene, *constant_velocity(scene)) for scene in map(dataset.scene, rows)
        ]
        samples = [dict(scene=s, trajectories=t, probabilities=p) for s, t, p in found]
    save_figure(scene_grid(samples, args.columns, args.extent), args.out)
    print(f'written: {args.out}')


if __name__ == '__main__':
    run_tool(main)
