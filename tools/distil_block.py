"""Replace a trained model's block by a small layer that imitates it, to ship it without the LLM.

    python tools/distil_block.py CONFIG CHECKPOINT --out work_dirs/small --width 64
    lm4ve test work_dirs/small/NAME_distilled.py work_dirs/small/NAME_distilled.pth

A model with a frozen block needs the language model's weights, and their licence,
wherever it runs. This tool puts a small transformer layer of four heads, with mappers
of its own, in the place of mappers and block. Only these train, on the training
samples, to give the outputs that the neck had ("FitNets: hints for thin deep nets",
arXiv 1412.6550, section 2.2). The rest of the model keeps its weights. Then both models
run the config's own test.

--out gets a config that depends on no other file, its checkpoint, and the comparison as
JSON. One seed gives one result on one machine.
"""

import argparse
from pathlib import Path
from typing import Any

# Before torch, whose threads read what this sets.
import lm4ve.commands  # noqa: F401  # isort: skip

import torch
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn
from tqdm import trange

from lm4ve.analysis.points import necks_of
from lm4ve.apis.models import in_scope_of
from lm4ve.blocks import count_parameters
from lm4ve.blocks.record_text import KEY
from lm4ve.blocks.tokens import take_tokens
from lm4ve.errors import UserError, check
from lm4ve.files import write_json, write_text
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.layouts import to_tokens
from lm4ve.release.portable_config import all_dicts, release_config
from lm4ve.runner import checkpoint_files, command_line
from lm4ve.runner.config import read_config
from lm4ve.runner.devices import find_device
from lm4ve.tasks.base.building import build_model

#: Fields of a neck that belong to its block or to the training of it.
_LEFT_OUT = (
    'block',
    'branch',
    'gate',
    'lora',
    'low_rank',
    'shuffle_tokens',
)
#: What of a neck's state the small layer has for itself.
_REPLACED = ('mapper_in.', 'mapper_out.', 'block.', 'gate', KEY)


# ---------------------------------------------------------------------------- models
def replace_blocks(cfg: Any, width: int | None) -> None:
    """Give each neck in a config the small layer, in place."""
    for node in all_dicts(cfg):
        if not str(node.get('type')).endswith(LLMBlockNeck.__name__):
            continue
        # Without the block in evaluation there is nothing to imitate.
        check('model.neck.branch', node.get('branch') or None, choices=(None,))
        for name in _LEFT_OUT:
            node.pop(name, None)
        layer_width = width or node['in_channels']
        arch = dict(
            model_type='bert',
            num_hidden_layers=1,
            hidden_size=layer_width,
            intermediate_size=4 * layer_width,
            num_attention_heads=4,
        )
        node['block'] = dict(
            type='LLMBlock', arch=arch, pretrained=False, trainable='all'
        )


def keep_the_rest(student: nn.Module, teacher: nn.Module) -> None:
    """Copy a model's weights except those of mappers and blocks.

    Raises:
        CheckpointError: The models differ in more than these.
    """
    replaced = []
    for neck_name, _ in necks_of(teacher):
        replaced += [f'{neck_name}.{part}' for part in _REPLACED]
    state = student.state_dict()
    for name, tensor in teacher.state_dict().items():
        if not name.startswith(tuple(replaced)):
            state[name] = tensor
    checkpoint_files.load_strictly(student, state, 'The trained model')


# ---------------------------------------------------------------------------- training
def tokens_of(neck: Any, output: Any, kwargs: dict[str, Any]) -> Tensor:
    """Return a neck's output as vectors ``[n, C]`` in fp32, without those of padding."""
    output = neck.pick_output(output)
    if output.dim() > 2:
        output, _ = to_tokens(output, neck.in_channels, neck.layout)
        padding = kwargs.get('padding_mask')
        if padding is not None:
            padding = take_tokens(padding[..., None], kwargs.get('queries'))
            output = output[~padding.squeeze(-1)]
    return output.flatten(0, -2).float()


def imitate(
    teacher: Any, student: nn.Module, cfg: Any, args: argparse.Namespace
) -> list[float]:
    """Train a student's necks to give what the teacher's give.

    Args:
        teacher (nn.Module): The trained model.
        student (nn.Module): Its necks stand where the teacher's do.
        cfg (Config): Adapted to the machine; its training data are used.
        args (Namespace): steps and seed.

    Returns:
        list[float]: Of each step the mean squared error, as a part of the variance of
        the teacher's vectors within the batch; the mean over necks.
    """
    set_random_seed(args.seed)  # a test has set another one
    for model in (teacher, student):
        model.to(find_device(None))
        model.eval()
    small = {}
    for (_, neck), (_, imitation) in zip(
        necks_of(teacher), necks_of(student), strict=True
    ):
        small[neck] = imitation
    losses: list[Tensor] = []

    def compare(neck: Any, inputs: Any, kwargs: dict[str, Any], output: Any) -> None:
        """A forward hook: append the imitation's squared error, as a share of the variance."""
        target = tokens_of(neck, output, kwargs)
        imitation = small[neck]
        with torch.enable_grad():
            found = tokens_of(imitation, imitation(*inputs, **kwargs), kwargs)
            variance = target.var(dim=0, correction=0).mean().clamp_min(1e-6)
            losses.append((found - target).square().mean() / variance)

    for neck in small:
        neck.register_forward_hook(compare, with_kwargs=True)
    optimizer = torch.optim.Adam(nn.ModuleList(small.values()).parameters(), 2e-3)
    # OneCycleLR needs steps on both sides of its peak.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, max(10, args.steps))
    loader = dict(cfg.train_dataloader, sampler=dict(type='InfiniteSampler'))
    batches = iter(Runner.build_dataloader(loader, args.seed))
    errors = []
    for _ in trange(args.steps, desc='imitating the block', disable=None):
        losses.clear()
        with torch.no_grad():
            batch = teacher.data_preprocessor(next(batches), True)
            teacher(**batch, mode='loss')
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        errors.append(float(loss.detach()))
    return errors


# -------------------------------------------------------------------------- comparison
def ready(args: argparse.Namespace) -> Any:
    """Return the config, adapted to the machine; each use gets one of its own."""
    return command_line.final_config(args)


def measure(model: nn.Module, cfg: Any, checkpoint: str | Path) -> dict[str, float]:
    """Return a model's parameters, and the metrics of its config's test."""
    command_line.evaluate_checkpoint(cfg, str(checkpoint), allow_partial=False)
    metrics = command_line.build_runner(cfg, short_console=True).test()
    necks = nn.ModuleList(neck for _, neck in necks_of(model))
    return {
        'parameters of the neck': sum(count_parameters(necks)),
        'parameters of the model': sum(count_parameters(model)),
        **metrics,
    }


def print_comparison(
    before: dict[str, float], after: dict[str, float], errors: list[float]
) -> None:
    """Print each metric before and after, and the mean error of the last steps of training."""
    for name, value in before.items():
        print(f'{name}: {value:.8g} -> {after[name]:.8g} ({after[name] - value:+.6g})')
    last = errors[-100:]
    share = sum(last) / len(last)
    print(f"Squared error in training: {share:.2%} of the outputs' variance.")


def main(argv: list[str] | None = None) -> None:
    parser = command_line.build_parser(__doc__, command_line.CONFIG)
    add = parser.add_argument
    parser.set_defaults(launcher='none', local_rank=0, no_pin_memory=False)
    add('checkpoint', help="of that config, or 'pretrained'")
    add('--width', type=int, help="of the layer; default: the encoder's")
    add(
        '--steps',
        type=int,
        default=2000,
        help='batches of training; default: %(default)s',
    )
    add('--seed', type=int, default=0)
    add('--out', type=Path, required=True, help='folder for config and checkpoint')
    args = parser.parse_args(argv)
    # The runner writes a config of the same name.
    args.work_dir = str(args.out / 'tests')
    path = args.out / f'{Path(args.config).stem}_distilled.py'
    if path.exists():
        raise UserError(f"'{path}' exists. Fix: another --out.")
    cfg = ready(args)
    small = read_config(args.config, args.cfg_options, set_scope=False)
    replace_blocks(small.model, args.width)
    text = release_config(small).pretty_text
    with in_scope_of(cfg):
        set_random_seed(args.seed)
        teacher, content = build_model(cfg, args.checkpoint)
        student, _ = build_model(small)
        if not necks_of(teacher):
            raise UserError(f"The model of '{args.config}' has no LLMBlockNeck.")
        keep_the_rest(student, teacher)
        before = measure(teacher, ready(args), args.checkpoint)
        errors = imitate(teacher, student, cfg, args)
    meta = dict(checkpoint_files.meta_of(content), cfg=text)  # inferencers read `cfg`
    checkpoint_files.write_checkpoint(
        student.state_dict(), meta, path.with_suffix('.pth')
    )
    write_text(text, path)
    args.config = path
    args.cfg_options = None
    after = measure(student, ready(args), path.with_suffix('.pth'))
    print_comparison(before, after, errors)
    content = dict(trained=before, distilled=after, errors=errors)
    write_json(content, path.with_suffix('.json'))


if __name__ == '__main__':
    command_line.run_tool(main)
