"""Time a training step of ViT-S and of Point-BERT in each precision that a config can have.

    python tools/benchmarks/precision.py --device cuda --out precision.json
    python tools/benchmarks/precision.py --tasks cloud --variants amp-bf16 fused-adamw

The models are those of the configs with a block of LLaMA-7B's size and random weights.
Each row differs from the first in one field; ratios are medians over rounds in which all
steps run after each other. Memory is what the model, its optimizer and two steps take.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from common import in_rounds, parse, report, step_row
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from steps import configs

from lm4ve.cost.fake import build_fake, fake_config
from lm4ve.runner.compiling import compile_training
from lm4ve.runner.precision import put_channels_last, set_tf32
from lm4ve.tasks import task_of_config


@dataclass(frozen=True)
class Variant:
    """A precision of a training.

    Attributes:
        block (str): The dtype of the frozen block.
        amp (str): The type of autocast; '' for none.
        tf32 (bool): Whether fp32 may be computed in TF32.
        cudnn_benchmark (bool): Whether cuDNN tries its algorithms.
        channels_last (bool): The layout of convolutions.
        fused (bool): Whether AdamW is one kernel.
        compiled (bool): Whether the forward pass is compiled.
    """

    block: str = 'float32'
    amp: str = ''
    tf32: bool = False
    cudnn_benchmark: bool = False
    channels_last: bool = False
    fused: bool = False
    compiled: bool = False
    only_cuda: bool = field(default=False, kw_only=True)


BASE = 'fp32'
VARIANTS = {
    BASE: Variant(),
    'block-bf16': Variant(block='bfloat16'),
    'block-fp16': Variant(block='float16'),
    'tf32': Variant(tf32=True, only_cuda=True),
    'amp-bf16': Variant(block='bfloat16', amp='bfloat16'),
    'amp-fp16': Variant(block='float16', amp='float16'),
    'channels-last': Variant(channels_last=True),
    'cudnn-benchmark': Variant(cudnn_benchmark=True, only_cuda=True),
    'fused-adamw': Variant(fused=True),
    'compile': Variant(compiled=True),
}


@contextlib.contextmanager
def flags_of(variant: Variant) -> Iterator[None]:
    """Set torch's flags of a variant in this context."""
    cudnn = torch.backends.cudnn
    before = (torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    set_tf32(variant.tf32)
    cudnn.benchmark = variant.cudnn_benchmark
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before[0]
        cudnn.allow_tf32 = before[1]
        cudnn.benchmark = before[2]


def trainer(
    cfg: Config, batch: int, device: str, variant: Variant
) -> Callable[[], None]:
    """Return a function that trains a step as MMEngine's loop does, with one batch.

    Args:
        cfg (Config): Its model is built with random weights.
        batch (int): Samples.
        device (str): Of the model and the data.
        variant (Variant): The precision.
    """
    cfg = fake_config(cfg)
    torch.manual_seed(0)
    model = build_fake(cfg).to(device)
    if variant.channels_last:
        put_channels_last(model)
    data = task_of_config(cfg).protocol.batch(cfg, batch, training=True)
    wrapper = dict(optimizer=dict(type='AdamW', lr=1e-5, fused=variant.fused))
    if variant.amp:
        wrapper.update(type='lm4ve.AutocastOptimWrapper', dtype=variant.amp)
    optim_wrapper = build_optim_wrapper(model, wrapper)
    if variant.compiled:
        compile_training(model, {})

    def step() -> None:
        with flags_of(variant):
            model.train_step(data, optim_wrapper)

    return step


def memory_of(build: Callable[[], Callable[[], None]], device: str) -> tuple:
    """Build a step and run it twice.

    Returns:
        tuple: The step, and the largest memory in MB beside what was allocated before,
        or None on a CPU, which does not count it.
    """
    if torch.device(device).type != 'cuda':
        return build(), None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step = build()
    step()
    step()
    torch.cuda.synchronize()
    return step, (torch.cuda.max_memory_allocated() - before) / 1e6


def main(argv=None) -> None:
    flags = {
        '--tasks': dict(
            nargs='+', default=['image', 'cloud'], choices=['image', 'cloud']
        ),
        '--variants': dict(
            nargs='+', default=[*VARIANTS], choices=VARIANTS, help='default: all'
        ),
        '--batch': dict(type=int, help="samples; default: the task's"),
    }
    args, rows = parse(argv, __doc__, flags), []
    is_cuda = torch.device(args.device).type == 'cuda'
    names = [BASE]
    for name in args.variants:
        if name != BASE and (is_cuda or not VARIANTS[name].only_cuda):
            names.append(name)
    for task in args.tasks:
        steps = {}
        memory = {}
        for name in names:
            variant = VARIANTS[name]
            _, cfg, batch = configs(task, args.width, variant.block)
            batch = args.batch or batch

            def build(cfg=cfg, batch=batch, variant=variant):
                return trainer(cfg, batch, args.device, variant)

            steps[name], memory[name] = memory_of(build, args.device)
        times = in_rounds(steps, args)
        for name in names:
            row = dict(task=task, precision=name, batch=batch)
            row |= step_row(times[name], times[BASE])
            row.pop('peak_mb', None)  # of all models together
            if memory[name] is not None:
                row |= {
                    'MB': memory[name],
                    'MB ratio': memory[name] / memory[BASE],
                }
            rows.append(row)
        del steps, times
        gc.collect()
    title = 'A training step with a LLaMA-7B-sized block: preprocessor, forward, backward, AdamW'
    report(title, rows, args, f'ratio: to {BASE}, median over rounds.')


if __name__ == '__main__':
    main()
