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

import torch
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn
from tqdm import trange

from lm4ve.analysis.points import necks_of
from lm4ve.apis.models import in_scope_of
from lm4ve.blocks import count_parameters
from lm4ve.blocks.provenance import NECK_KEY
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
    'train_queries',
)
#: What of a neck's state the small layer has for itself.
_REPLACED = ('mapper_in.', 'mapper_out.', 'block.', 'gate', NECK_KEY)


# ---------------------------------------------------------------------------- models
def replace_blocks(cfg: Any, width: int | None) -> None:
    """Give each neck in a config the small layer, in place."""
    necks = [
        d for d in all_dicts(cfg) if str(d.get('type')).endswith(LLMBlockNeck.__name__)
    ]
    for node in necks:
        # Without the block in evaluation there is nothing to imitate.
        check('model.neck.branch', node.get('branch') or None, choices=(None,))
        for name in _LEFT_OUT:
            node.pop(name, None)
        d = width or node['in_channels']
        sizes = dict(hidden_size=d, intermediate_size=4 * d, num_attention_heads=4)
        arch = dict(model_type='bert', num_hidden_layers=1, **sizes)
        node['block'] = dict(
            type='LLMBlock', arch=arch, pretrained=False, trainable='all'
        )


def keep_the_rest(student: nn.Module, teacher: nn.Module) -> None:
    """Copy a model's weights except those of mappers and blocks.

    Raises:
        CheckpointError: The models differ in more than these.
    """
    replaced = tuple(
        f'{name}.{part}' for name, _ in necks_of(teacher) for part in _REPLACED
    )
    kept = {k: v for k, v in teacher.state_dict().items() if not k.startswith(replaced)}
    state = {**student.state_dict(), **kept}
    checkpoint_files.load_strictly(student, state, 'The trained model')


# ---------------------------------------------------------------------------- training
def tokens_of(neck: Any, output: Any, kwargs: dict[str, Any]) -> Tensor:
    """Return a neck's output as vectors ``[n, C]`` in fp32, without those of padding."""
    if isinstance(output, tuple) and isinstance(
        output[-1], dict
    ):  # mmaction2's protocol
        output = output[0]
    if not isinstance(output, Tensor):
        output = output[neck.index if neck.keep_others else 0]
    if output.dim() > 2:
        output, _ = to_tokens(output, neck.in_channels, neck.layout)
        if (mask := kwargs.get('padding_mask')) is not None:
            output = output[
                ~take_tokens(mask[..., None], kwargs.get('queries')).squeeze(-1)
            ]
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
        model.to(find_device(None)).eval()
    pairs = zip(necks_of(teacher), necks_of(student), strict=True)
    small = {neck: imitation for (_, neck), (_, imitation) in pairs}
    losses: list[Tensor] = []

    def compare(neck: Any, inputs: Any, kwargs: dict[str, Any], output: Any) -> None:
        target = tokens_of(neck, output, kwargs)
        with torch.enable_grad():
            found = tokens_of(small[neck], small[neck](*inputs, **kwargs), kwargs)
            scale = target.var(dim=0, correction=0).mean().clamp_min(1e-6)
            losses.append((found - target).square().mean() / scale)

    for neck in small:
        neck.register_forward_hook(compare, with_kwargs=True)
    optimizer = torch.optim.Adam(nn.ModuleList(small.values()).parameters(), 2e-3)
    # OneCycleLR needs steps on both sides of its peak.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, max(10, args.steps))
    loader = dict(cfg.train_dataloader, sampler=dict(type='InfiniteSampler'))
    data, errors = iter(Runner.build_dataloader(loader, args.seed)), []
    for _ in trange(args.steps, desc='imitating the block', disable=None):
        losses.clear()
        with torch.no_grad():
            teacher(**teacher.data_preprocessor(next(data), True), mode='loss')
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        errors.append(float(loss.detach()))
    return errors


# ----------------------------------------------------------------------------
# comparison
def ready(args: argparse.Namespace) -> Any:
    return command_line.finish_config(command_line.load_config(args), args)


def measure(model: nn.Module, cfg: Any, checkpoint: str | Path) -> dict[str, float]:
    """Return a model's parameters, and the metrics of its config's test."""
    command_line.evaluate_checkpoint(cfg, str(checkpoint), allow_partial=False)
    metrics = command_line.build_runner(cfg, short_console=True).test()
    neck = nn.ModuleList(neck for _, neck in necks_of(model))
    sizes = {'parameters of the neck': neck, 'parameters of the model': model}
    return {**{k: sum(count_parameters(m)) for k, m in sizes.items()}, **metrics}


def main(argv: list[str] | None = None) -> None:
    add = (
        parser := command_line.build_parser(__doc__, command_line.CONFIG)
    ).add_argument
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
    args.work_dir = str(
        args.out / 'tests'
    )  # the runner writes a config of the same name
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
    args.config, args.cfg_options = path, None
    after = measure(student, ready(args), path.with_suffix('.pth'))
    for name, value in before.items():
        print(f'{name}: {value:.8g} -> {after[name]:.8g} ({after[name] - value:+.6g})')
    last = errors[-100:]
    print(
        f"Squared error in training: {sum(last) / len(last):.2%} of the outputs' variance."
    )
    write_json(
        dict(trained=before, distilled=after, errors=errors), path.with_suffix('.json')
    )


if __name__ == '__main__':
    command_line.run_tool(main)
