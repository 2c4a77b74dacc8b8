"""Time a whole training step of every task, with and without a LLaMA-7B-sized block.

    python tools/benchmarks/steps.py --out steps.json
    python tools/benchmarks/steps.py --tasks image --batch 16 --dtype float32

The models are those of the configs, at full size and with random weights; a batch is
made up (lm4ve/tasks/<task>/batches.py). The steps of a task run one after the other,
round by round, and the ratio is the median over rounds. One task is held in memory at a
time.

`--compile` measures each step through torch.compile, too: in its rows `first step` is the
CPU time of the step that compiles, with the compilers that it starts.
"""

import gc
import os
from pathlib import Path

import torch
from common import in_rounds, llama, parse, report, step_row
from mmengine.config import Config

from lm4ve.cost.fake import build_fake, fake_config
from lm4ve.cost.step import cost_of_step
from lm4ve.runner.config import read_config
from lm4ve.tasks import task_of_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CLOUD = 'pointcloud/pointbert'
#: Task -> the config without a block, the one with it, and samples of a batch.
PAIRS = {
    'image': ('lm4ve/vit-s_in1k.py', 'lm4ve/vit-s_llama_in1k.py', 32),
    'video': ('video/videomae-s_ssv2.py', 'video/videomae-s_llama_ssv2.py', 1),
    'cloud': (
        f'{CLOUD}_scanobjectnn-hardest.py',
        f'{CLOUD}_llama_scanobjectnn-hardest.py',
        16,
    ),
    'motion': (
        'motion/vectornet_argoverse1.py',
        'motion/vectornet_llama_argoverse1.py',
        32,
    ),
    'vqa': (
        'vqa/meter_vqav2.py',
        'vqa/meter_llama_vqav2.py',
        16,
    ),
}

#: Ends the name of a compiled step.
COMPILED = ', compiled'


def trainer(cfg: Config, batch: int, device: str, wrap=lambda model: model):
    """Return a function that runs one AdamW step: preprocessor, loss, backward, update.

    Args:
        cfg (Config): Its model is built with random weights.
        batch (int): Samples.
        device (str): Of the model and the data.
        wrap (callable): Returns what the model is called through, for example DDP.
    """
    cfg = fake_config(cfg)
    torch.manual_seed(0)
    model = build_fake(cfg).to(device)
    data = task_of_config(cfg).protocol.batch(cfg, batch, training=True)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-5
    )
    called = wrap(model)

    def step() -> None:
        """Train for a step with the same batch every time."""
        optimizer.zero_grad()
        loss, _ = model.parse_losses(
            called(**model.data_preprocessor(data, True), mode='loss')
        )
        loss.backward()
        optimizer.step()

    return step


def configs(task: str, width: int, dtype: str) -> tuple[Config, Config, int]:
    """Return the config of a task without a block, the one with it, and samples of a batch."""
    *names, batch = PAIRS[task]
    plain, other = (read_config(CONFIGS / name) for name in names)
    block = dict(dtype=dtype, checkpoint=None, arch=llama(width), layers=(-1,))
    other.model.neck.block.update(block)
    return plain, other, batch


def cpu_seconds_with_children(function) -> float:
    """Run a function; return the CPU time of this process and of those it waited for."""
    before = os.times()
    function()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def main(argv=None) -> None:
    flags = {
        '--tasks': dict(nargs='+', default=list(PAIRS), choices=PAIRS),
        '--dtype': dict(default='bfloat16', help='of the frozen weights'),
        '--batch': dict(type=int, help="samples; default: the task's"),
        '--compile': dict(action='store_true', help='compiled steps, too'),
    }
    args, rows = parse(argv, __doc__, flags), []
    for task in args.tasks:
        plain, other, batch = configs(task, args.width, args.dtype)
        named = {task: plain, f'{task} + LLaMA-7B block': other}
        batch = args.batch or batch
        steps = {name: trainer(cfg, batch, args.device) for name, cfg in named.items()}
        first_steps = {}
        if args.compile:
            for name, cfg in named.items():
                compiled = trainer(cfg, batch, args.device, torch.compile)
                steps[name + COMPILED] = compiled
                first_steps[name + COMPILED] = cpu_seconds_with_children(compiled)
        times = in_rounds(steps, args)
        for path, own in times.items():
            name = path.removesuffix(COMPILED)
            dtype = dict(dtype=args.dtype) if name != task else {}
            gmac = cost_of_step(named[name], batch).macs / 1e9
            row = dict(path=path, batch=batch, **dtype, GMAC=gmac)
            row |= step_row(own, times[task])
            if path in first_steps:
                row['first step'] = first_steps[path]
            rows.append(row)
        del steps, times
        gc.collect()
    title = 'A training step of each task: preprocessor, forward, backward, AdamW'
    note = 'ratio: median over rounds in which all steps run after each other; CPU ratio: the same '
    report(title, rows, args, note + "of this process's CPU time.")


if __name__ == '__main__':
    main()
