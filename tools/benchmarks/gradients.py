"""Measure how far a training step's gradients move with the dtype of the frozen block.

    python tools/benchmarks/gradients.py --width 1024 --batch 4 --out gradients.json

The trunk computes in fp32; the block in each type, with the same random weights and the
same batch. The gradient of everything that trains is compared with that of an fp32 block:
at the scale of the loss, and with a hundredth and a ten-thousandth of it, as late in a
training or under a small weight. There is no loss scaler.
"""

import torch
from common import parse, report
from mmengine.config import Config
from steps import PAIRS, configs
from torch import Tensor, nn

from lm4ve.cost.fake import build_fake, fake_config
from lm4ve.tasks import task_of_config

DTYPES = ('float32', 'bfloat16', 'float16')
SCALES = (1.0, 1e-2, 1e-4)


def gradient_of(
    cfg: Config, batch: int, device: str, scale: float
) -> tuple[Tensor, float]:
    """Return the gradient of a scaled loss, ``[P]`` in float64, and the loss.

    Args:
        cfg (Config): Its model is built with seeded random weights.
        batch (int): Samples.
        device (str): Where it is computed.
        scale (float): The factor of the loss before its backward pass.
    """
    cfg = fake_config(cfg)
    torch.manual_seed(0)
    model = build_fake(cfg).to(device)
    torch.manual_seed(0)
    data = task_of_config(cfg).protocol.batch(cfg, batch, training=True)
    loss, _ = model.parse_losses(
        model(**model.data_preprocessor(data, True), mode='loss')
    )
    (loss * scale).backward()
    gradients = [p.grad.double() for p in model.parameters() if p.grad is not None]
    return nn.utils.parameters_to_vector(gradients), loss.item()


def main(argv=None) -> None:
    flags = {
        '--tasks': dict(nargs='+', default=['cloud', 'motion'], choices=PAIRS),
        '--batch': dict(type=int, default=4, help='samples; default 4'),
    }
    args, rows = parse(argv, __doc__, flags, width=1024), []
    for task in args.tasks:
        for scale in SCALES:
            exact = None
            for dtype in DTYPES:
                _, cfg, _ = configs(task, args.width, dtype)
                gradient, loss = gradient_of(cfg, args.batch, args.device, scale)
                if exact is None:  # fp32 is the first
                    exact = gradient
                    exact_loss = loss
                error = (gradient - exact).norm() / exact.norm()
                cosine = nn.functional.cosine_similarity(gradient, exact, dim=0)
                rows.append(
                    {
                        'task': task,
                        'block': dtype,
                        'loss times': scale,
                        'cosine': f'{cosine.item():.6f}',
                        'gradient error': error.item(),
                        'loss error': abs(loss - exact_loss) / abs(exact_loss),
                    }
                )
    title = f'Gradients with a block in 16 bits, D = {args.width}, trunk in fp32'
    report(title, rows, args, 'Errors are relative to an fp32 block.')


if __name__ == '__main__':
    main()
