"""Draw a cloud of a config's test set with its token groups colored.

python tools/pointcloud/draw.py CONFIG OUT.png --index 3
"""

import torch
from matplotlib.figure import Figure
from mmengine.registry import DATASETS

from lm4ve.draw.figures import save_figure
from lm4ve.draw.pictures import TokenMap
from lm4ve.errors import UserError
from lm4ve.runner.command_line import CONFIG, build_parser, read_config, run_tool
from lm4ve.tasks import require_task
from lm4ve.tasks.pointcloud import group_points
from lm4ve.tasks.pointcloud.visualization import Cloud


def main(argv: list[str] | None = None) -> None:
    parser = build_parser(__doc__, CONFIG)
    parser.add_argument('out')
    parser.add_argument('--index', type=int, default=0, help='which cloud')
    args = parser.parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    require_task(cfg, 'pointcloud')
    backbone = cfg.model.backbone
    if 'num_groups' not in backbone:
        raise UserError(
            f"backbone.type='{backbone.type}' has no num_groups and group_size, which are what is "
            'drawn. Fix: name a config whose backbone groups points, as PointBERT does.'
        )
    points = DATASETS.build(cfg.test_dataloader.dataset)[args.index]['inputs']
    _, index = group_points(points[None], backbone.num_groups, backbone.group_size)
    # Neighbors in number far apart in hue: steps by the golden ratio.
    values = (torch.arange(len(index[0])).double() * 0.618034 % 1).numpy()
    figure = Figure(figsize=(6, 6))
    cloud = Cloud(points.double().numpy(), index[0].numpy())
    cloud.draw_values(
        figure.subplots(), TokenMap('groups', '', values, values.shape), 'hsv'
    )
    save_figure(figure, args.out)
    print(f'{args.out}: {len(points)} points, {len(index[0])} groups')


if __name__ == '__main__':
    with torch.no_grad():
        run_tool(main)
