"""Time a classifier's forward pass: eager, torch.compile, torch.export and onnxruntime.

    python tools/benchmarks/export.py --width 1024 --batches 1 8 --out export.json

A ViT-S with one random block of LLaMA's shape, in fp32 on a CPU; the class token is
read.
"""

import tempfile
from functools import partial
from pathlib import Path

import torch
from common import in_rounds, middle, parse, ratio, report
from steps import configs

from lm4ve.cost.fake import build_fake, fake_config
from lm4ve.release import formats
from lm4ve.release.exporting import Exported
from lm4ve.release.tracing import trace, traceable
from lm4ve.tasks import get_task


def classifier(width: int, size: int, depth: int) -> torch.nn.Module:
    """Build the model of ``vit-s_llama_in1k.py`` with other sizes."""
    _, cfg, _ = configs('image', width, 'float32')
    sizes = dict(
        embed_dims=384, num_layers=depth, num_heads=6, feedforward_channels=1536
    )
    cfg.model.backbone.update(arch=sizes, img_size=size)
    return build_fake(fake_config(cfg)).eval().requires_grad_(False)


def paths_of(function: torch.nn.Module, images: torch.Tensor, compiles: bool) -> dict:
    """Return the ways to run a model, each from a batch of images to its outputs."""
    axes = [{0: 'batch'}]
    paths = dict(eager=lambda x: function(*x))
    if compiles:
        paths['torch.compile'] = torch.compile(lambda x: function(*x), dynamic=True)
    with (
        traceable(),
        torch.no_grad(),
        tempfile.TemporaryDirectory() as folder,
    ):
        function(images)
        program = trace(function, [images], axes)
        path = Path(folder, 'model.onnx')
        formats.write_onnx(program, path, dict(version='0'), ['images'], ['logits'])
        paths['onnxruntime'] = formats.load_onnx(path)
    exported = program.module()
    paths['torch.export'] = lambda x: exported(*x)
    return paths


@torch.no_grad()
def main(argv=None) -> None:
    flags = {
        '--batches': dict(nargs='+', type=int, default=[1, 8]),
        '--compile': dict(
            action='store_true', help='also torch.compile (a C++ compiler)'
        ),
    }
    args = parse(argv, __doc__, flags, size=224, depth=12)
    args.device = 'cpu'  # where onnxruntime is tested
    torch.manual_seed(0)
    function = Exported(
        get_task('image').protocol, classifier(args.width, args.size, args.depth)
    )

    images = torch.randint(256, (max(2, *args.batches), 3, args.size, args.size)).byte()
    paths, rows = paths_of(function, images[:2], args.compile), []
    for batch in args.batches:
        x = [images[:batch]]
        expected = function(*x)[0]
        errors = {
            n: float((run(x)[0] - expected).abs().max()) for n, run in paths.items()
        }
        times = in_rounds({n: partial(run, x) for n, run in paths.items()}, args)
        for name in paths:
            row = dict(
                path=name, batch=batch, **middle(times[name]), error=errors[name]
            )
            own = times['eager'], times[name]
            row |= {'speedup': ratio(*own), 'CPU speedup': ratio(*own, 'cpu_seconds')}
            rows.append(row)
    title = (
        f'ViT-S with a block of D={args.width}, {args.size} pixels: forward pass, fp32'
    )
    note = f'Medians of {args.repeats} rounds; speedup: median of ratios to eager within a round; '
    note += 'CPU speedup: of the CPU time, which other processes hardly touch. '
    report(title, rows, args, note + 'error: largest difference of a logit.')


if __name__ == '__main__':
    main()
