"""List where torch.compile would split a training step, by file and line.

    python tools/dev/graph_breaks.py configs/lm4ve/vit-s_llama_in1k.py
    python tools/dev/graph_breaks.py --real-data projects/*/configs/*-demo_*.py
    python tools/dev/graph_breaks.py --out breaks.json configs/*/*-demo_minilm_*.py

torch._dynamo traces the forward pass with its losses, after the data preprocessor, and
nothing is compiled. One graph means that torch.compile sees the whole pass; each split
costs launches and fusions, and one that reads a value waits for the GPU.

The models are those of the configs, at full size, with random weights and a made-up
batch, as `lm4ve cost` takes them. `--real-data` takes the config's own weights and
data, which models of other libraries need.
"""

import argparse
import sysconfig
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

import lm4ve
from lm4ve.cost.fake import build_fake, fake_config
from lm4ve.files import write_json
from lm4ve.runner.command_line import build_runner, finish_config
from lm4ve.runner.config import read_config
from lm4ve.runner.flags import build_parser
from lm4ve.runner.tables import print_table
from lm4ve.tasks import task_of_config

FLAGS = {
    'configs': dict(nargs='+', help='config files'),
    '--batch': dict(type=int, default=2, help='samples of a made-up batch; default 2'),
    '--real-data': dict(action='store_true', help="use the config's weights and data"),
    '--out': dict(type=Path, help='write the rows as JSON'),
}
#: Folders that installed packages and ours lie in.
_ROOTS = (
    Path(sysconfig.get_path('purelib')),
    Path(sysconfig.get_path('platlib')),
    Path(lm4ve.__file__).parents[1],
)


@dataclass(frozen=True)
class Trace:
    """What torch._dynamo makes of a forward pass.

    Attributes:
        graphs: How many graphs it has; 1: it is not split.
        breaks: (file and line, reason) -> how often the graph is split there.
    """

    graphs: int
    breaks: Counter[tuple[str, str]]

    def files(self) -> set[str]:
        """Return the files that split the graph, such as 'mmcv/cnn/bricks/drop.py'."""
        return {place.partition(':')[0] for place, _ in self.breaks}


def trace_config(cfg: Config, batch: int = 2, real_data: bool = False) -> Trace:
    """Trace a training step of a config's model.

    Args:
        cfg (Config): The config.
        batch (int): Samples of the made-up batch.
        real_data (bool): Build the model and take a batch as a training does.
    """
    if real_data:
        model, data = step_of_runner(cfg)
    else:
        model, data = made_up_step(cfg, batch)
    return trace_step(model, data)


def made_up_step(cfg: Config, batch: int) -> tuple[Any, Any]:
    """Return a config's model with random weights, and a batch that is made up."""
    cfg = fake_config(cfg)
    torch.manual_seed(0)
    model = build_fake(cfg)
    return model, task_of_config(cfg).protocol.batch(cfg, batch, training=True)


def step_of_runner(cfg: Config) -> tuple[Any, Any]:
    """Return a config's model as its training starts, and the first batch."""
    runner: Runner = build_runner(cfg)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    return runner.model.train(), next(iter(loader))


def trace_step(model: nn.Module, data: Any) -> Trace:
    """Trace the forward pass of a model of MMEngine in training, with its losses.

    Args:
        model (BaseModel): The model, in training mode.
        data: A batch of the loader.
    """
    inputs = model.data_preprocessor(data, True)

    def forward(inputs: dict[str, Any]) -> Any:
        losses = model(**inputs, mode='loss')
        return model.parse_losses(losses)

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # what is not traced is in the result
        explained = torch._dynamo.explain(forward)(inputs)
    breaks: Counter[tuple[str, str]] = Counter()
    for found in explained.break_reasons:
        reason = found.reason.partition('\n')[0]
        breaks[place_of(found.user_stack[-1]), reason] += 1
    return Trace(explained.graph_count, breaks)


def place_of(frame: Any) -> str:
    """Return a frame's file and line below its package's root: 'mmcv/ops/nms.py:12'."""
    file = Path(frame.filename)
    for root in _ROOTS:
        if file.is_relative_to(root):
            return f'{file.relative_to(root)}:{frame.lineno}'
    return f'{file}:{frame.lineno}'


def rows_of(name: str, trace: Trace) -> list[dict[str, str]]:
    """Return a row for each place that splits the graph; one row if none does."""
    graphs = str(trace.graphs)
    if not trace.breaks:
        return [dict(config=name, graphs=graphs, times='', place='', reason='')]
    rows = []
    for (place, reason), times in sorted(trace.breaks.items()):
        row = dict(config=name, graphs=graphs, times=str(times))
        rows.append(row | dict(place=place, reason=reason))
    return rows


def main(argv: list[str] | None = None) -> None:
    args = build_parser(__doc__, FLAGS).parse_args(argv)
    rows = []
    for path in args.configs:
        cfg = read_config(path, set_scope=False)
        if args.real_data:
            cfg.launcher = 'none'
            cfg.work_dir = f'./work_dirs/{Path(path).stem}'
            options = argparse.Namespace(no_pin_memory=True, cfg_options=None)
            cfg = finish_config(cfg, options)
        trace = trace_config(cfg, args.batch, args.real_data)
        rows += rows_of(Path(path).stem, trace)
    print_table('Graphs of a training step', rows)
    if args.out:
        write_json(rows, args.out)


if __name__ == '__main__':
    main()
