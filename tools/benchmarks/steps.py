"""Time a whole training step of every task, with and without a LLaMA-7B-sized block.

    python tools/benchmarks/steps.py --out steps.json

The models are those of the configs, at full size and with random weights; a batch is made up
(lm4ve/tasks/<task>/batches.py). The steps of a task run one after the other, round by round,
and the ratio is the median over rounds. One task is held in memory at a time.

Where the head pools over all tokens, the step is measured with some of them, too:
`--train-queries 0.5 0.25` are the parts that `LLMBlockNeck(train_queries=...)` draws.
"""

import gc
import statistics
from functools import partial
from pathlib import Path

import torch
from common import DTYPES, in_rounds, llama, middle, parse, parser, ratio, report
from mmengine.config import Config

import lm4ve  # noqa: F401
from lm4ve.cost.fake import build_fake, fake_config
from lm4ve.cost.step import cost_of_step
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.train_only import TrainOnly
from lm4ve.runner.config import read_config
from lm4ve.tasks import task_of_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
#: Task -> the config without a block, the one with it, and samples of a batch.
PAIRS = {
    'image': ('lm4ve/vit-s_in1k.py', 'lm4ve/vit-s_llama_in1k.py', 32),
    'video': ('video/videomae-s_ssv2.py', 'video/videomae-s_llama_ssv2.py', 1),
    'cloud': (
        'pointcloud/pointbert_scanobjectnn-hardest.py',
        'pointcloud/pointbert_llama_scanobjectnn-hardest.py',
        16,
    ),
    'motion': ('motion/vectornet_argoverse1.py', 'motion/vectornet_llama_argoverse1.py', 32),
    'vqa': ('vision_language/meter_vqav2.py', 'vision_language/meter_llama_vqav2.py', 16),
}

#: Tasks whose head pools over the block's tokens, so that a step may compute some of them.
POOLED = ('video', 'cloud')


def trainer(cfg: Config, batch: int, device: str, wrap=lambda model: model):
    """Return a function that takes one AdamW step: preprocessor, loss, backward, update.

    It takes the part of the tokens that the neck draws; None: as the config says. ``wrap`` is
    what the model is called through, for example DDP.
    """
    cfg = fake_config(cfg)
    torch.manual_seed(0)
    model = build_fake(cfg).to(device)
    neck = getattr(model, 'neck', None)
    own = getattr(neck, 'train_only', None)
    data = task_of_config(cfg).batches.batch(cfg, batch, training=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    called = wrap(model)

    def step(part: float | None = None) -> None:
        if isinstance(neck, LLMBlockNeck):
            neck.train_only = own if part is None else TrainOnly(part, None, neck.out_type)
        optimizer.zero_grad()
        loss, _ = model.parse_losses(called(**model.data_preprocessor(data, True), mode='loss'))
        loss.backward()
        optimizer.step()

    return step


def configs(task: str, args) -> tuple[Config, Config, int]:
    """Return the two configs of a task, with the block of the flags, and the batch."""
    *names, batch = PAIRS[task]
    plain, other = (read_config(CONFIGS / name) for name in names)
    block = other.model.neck.block
    block.update(dtype=args.dtype, checkpoint=None, arch=llama(args.width), layers=(-1,))
    return plain, other, 2 if args.tiny else batch


def paths(task: str, args) -> tuple[dict, dict, int]:
    """Return the steps of a task and what each costs, by name, and the batch."""
    plain, other, batch = configs(task, args)
    steps = {task: trainer(plain, batch, args.device)}
    costs = {task: cost_of_step(plain, batch)}
    blocked = trainer(other, batch, args.device)
    for part in (None, *(args.train_queries if task in POOLED else ())):
        name = f'{task} + LLaMA-7B block'
        if part is not None:
            name += f', {part:.3g} of the tokens'
            other.model.neck.train_queries = part
        steps[name] = partial(blocked, part)
        costs[name] = cost_of_step(other, batch)
    return steps, costs, batch


def main(argv=None) -> None:
    p = parser(__doc__)
    p.add_argument('--tasks', nargs='+', default=list(PAIRS), choices=PAIRS)
    p.add_argument('--dtype', default='bfloat16', choices=DTYPES, help='of the frozen weights')
    p.add_argument('--tiny', action='store_true', help='batches of two, for a trial')
    p.add_argument(
        '--train-queries',
        nargs='*',
        type=float,
        default=[0.5, 0.25, 0.125],
        help='parts of the tokens that a step computes, in (0, 1); default: 0.5 0.25 0.125',
    )
    args = parse(p, argv)
    rows = []
    for task in args.tasks:
        steps, costs, batch = paths(task, args)
        times = in_rounds(steps, args)
        for name, own in times.items():
            row = dict(path=name, batch=batch)
            if name != task:
                row['dtype'] = args.dtype
            row['ratio'] = ratio(own, times[task])
            if 'cpu_seconds' in own[0]:
                row['CPU ratio'] = ratio(own, times[task], 'cpu_seconds')
                row['CPU seconds'] = statistics.median(r['cpu_seconds'] for r in own)
            row['GMAC'] = costs[name].macs / 1e9
            rows.append(dict(row, **middle(own)))
        del steps, times
        gc.collect()
    report(
        'A training step of each task: preprocessor, forward, backward, AdamW',
        rows,
        args,
        'ratio: median over rounds in which all steps run after each other; CPU ratio: the same '
        "of this process's CPU time.",
    )


if __name__ == '__main__':
    main()
