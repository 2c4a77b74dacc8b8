"""Replace a trained model's block by a small layer that imitates it, to ship it without the LLM.

    python tools/distil_block.py CONFIG CHECKPOINT --out work_dirs/small --width 64
    lm4ve test work_dirs/small/NAME_distilled.py work_dirs/small/NAME_distilled.pth

A model with a frozen block needs the language model's weights, and their licence, wherever it
runs. This tool puts a small transformer layer, attention alone or an MLP, with mappers of its
own, in the place of mappers and block. Only these train, on the training samples, to give the
outputs that the neck had ("FitNets: hints for thin deep nets", arXiv 1412.6550, section 2.2).
The rest of the model keeps its weights. Then both models run the config's own test.

--out gets a config that depends on no other file, its checkpoint, and the comparison as JSON.
One seed gives one result on one machine.
"""

import argparse
import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn
from tqdm import trange

import lm4ve
from lm4ve.apis.models import in_scope_of
from lm4ve.blocks import count_parameters
from lm4ve.blocks.layer import take_tokens
from lm4ve.blocks.provenance import NECK_KEY, SOURCE_KEY
from lm4ve.cost.tables import print_table
from lm4ve.errors import UserError, check, listing
from lm4ve.files import write_json, write_text
from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.layouts import to_tokens
from lm4ve.release.release import release_config
from lm4ve.runner import checkpoint_files as files
from lm4ve.runner import command_line
from lm4ve.runner.config import read_config
from lm4ve.runner.devices import find_device
from lm4ve.runner.flags import CHECKPOINT
from lm4ve.tasks.base.building import build_model

#: Fields of a neck that belong to its block or to the training of it.
_LEFT_OUT = ('block', 'branch', 'gate', 'lora', 'low_rank', 'shuffle_tokens', 'train_queries')
#: What of a neck's state the small layer has for itself.
_REPLACED = ('mapper_in.', 'mapper_out.', 'block.', 'gate', NECK_KEY, SOURCE_KEY)
#: The choices of --block -> the config of a layer of a width.
_BLOCKS: dict[str, Any] = {
    'attention': lambda width, heads: dict(
        type='lm4ve.AttentionBlock', embed_dims=width, num_heads=heads
    ),
    'transformer': lambda width, heads: dict(
        type='LLMBlock',
        arch=dict(
            model_type='bert',
            hidden_size=width,
            intermediate_size=4 * width,
            num_attention_heads=heads,
            num_hidden_layers=1,
        ),
        pretrained=False,
        trainable='all',
    ),
    'mlp': lambda width, heads: dict(type='MLPBlock', embed_dims=width),
}


# ---------------------------------------------------------------------------- models
def replace_blocks(node: Any, args: argparse.Namespace) -> int:
    """Give each neck in a config the small layer, in place; return how many there are."""
    if isinstance(node, (list, tuple)):
        return sum(replace_blocks(value, args) for value in node)
    if not isinstance(node, dict):
        return 0
    if str(node.get('type')).rpartition('.')[2] != LLMBlockNeck.__name__:
        return sum(replace_blocks(value, args) for value in node.values())
    # Without it in evaluation there is nothing to replace.
    check('model.neck.branch', node.get('branch') or None, choices=(None,))
    for name in _LEFT_OUT:
        node.pop(name, None)
    width = node['in_channels'] if args.width is None else args.width
    node['block'] = _BLOCKS[args.block](width, args.heads)
    return 1


def necks_of(model: nn.Module) -> dict[str, LLMBlockNeck]:
    return {name: m for name, m in model.named_modules() if isinstance(m, LLMBlockNeck)}


def keep_the_rest(student: nn.Module, teacher: nn.Module) -> None:
    """Copy a model's weights except those of mappers and blocks.

    Raises:
        CheckpointError: The models differ in more than these.
    """
    replaced = tuple(f'{name}.{part}' for name in necks_of(teacher) for part in _REPLACED)
    kept = {k: v for k, v in teacher.state_dict().items() if not k.startswith(replaced)}
    files.load_strictly(student, {**student.state_dict(), **kept}, 'The trained model')


# ---------------------------------------------------------------------------- training
def batches(cfg: Config, seed: int) -> Iterator[Any]:
    """Yield training batches without end, each epoch in another order."""
    loader, epoch = Runner.build_dataloader(cfg.train_dataloader, seed), 0
    while True:
        if hasattr(loader.sampler, 'set_epoch'):
            loader.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def tokens_of(neck: LLMBlockNeck, output: Any, kwargs: dict[str, Any]) -> Tensor:
    """Return a neck's output as vectors ``[n, C]``, without those of padding."""
    if isinstance(output, tuple) and isinstance(output[-1], dict):  # mmaction2's protocol
        output = output[0]
    if not isinstance(output, Tensor):
        output = output[neck.index if neck.keep_others else 0]
    if output.dim() > 2:
        output, _ = to_tokens(output, neck.in_channels, neck.layout)
        if (mask := kwargs.get('padding_mask')) is not None:
            return output[~take_tokens(mask[..., None], kwargs.get('queries')).squeeze(-1)]
    return output.flatten(0, -2)


def imitate(
    teacher: Any, student: nn.Module, cfg: Config, args: argparse.Namespace
) -> list[dict[str, float]]:
    """Train a student's necks to give what the teacher's give.

    Args:
        teacher (nn.Module): The trained model.
        student (nn.Module): Its necks stand where the teacher's do.
        cfg (Config): Adapted to the machine; its training data are used.
        args (Namespace): steps, lr and seed.

    Returns:
        list[dict]: For each tenth of the steps the last one, and ``error``: the mean squared
        error as a part of the variance of the teacher's vectors within a batch.
    """
    set_random_seed(args.seed)  # a test has set another one
    for model in (teacher, student):
        model.to(find_device(None)).eval()
    small = dict(zip(necks_of(teacher).values(), necks_of(student).values(), strict=True))
    errors: list[Tensor] = []
    variances: list[Tensor] = []

    def hook(neck: Any, inputs: Any, kwargs: dict[str, Any], output: Any) -> None:
        target = tokens_of(neck, output, kwargs).float()
        with torch.enable_grad():
            found = tokens_of(small[neck], small[neck](*inputs, **kwargs), kwargs).float()
            errors.append(F.mse_loss(found, target))
        variances.append(target.var(dim=0, correction=0).mean())

    for neck in small:
        neck.register_forward_hook(hook, with_kwargs=True)
    parameters = [p for p in nn.ModuleList(small.values()).parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, args.lr, weight_decay=0.0)
    # OneCycleLR needs steps on both sides of its peak.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, max(10, args.steps))
    data, log, recent = batches(cfg, args.seed), [], []
    for step in trange(1, args.steps + 1, desc='imitating the block', disable=None):
        with torch.no_grad():
            teacher(**teacher.data_preprocessor(next(data), True), mode='loss')
        loss = torch.stack(errors).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        recent.append((loss.item(), float(sum(variances))))
        errors.clear()
        variances.clear()
        if step % max(1, args.steps // 10) == 0 or step == args.steps:
            error, variance = map(sum, zip(*recent, strict=True))
            log.append(dict(step=step, error=error / variance if variance else math.nan))
            recent.clear()
    return log


# ---------------------------------------------------------------------------- comparison
def ready(config: str | Path, options: Any, folder: Path) -> Config:
    """Read a config as the commands do."""
    fixed = dict(launcher='none', local_rank=0, no_pin_memory=False, work_dir=str(folder))
    given = argparse.Namespace(config=config, cfg_options=options, **fixed)
    return command_line.finish_config(command_line.load_config(given), given)


def test(cfg: Config, checkpoint: str | Path) -> dict[str, float]:
    command_line.evaluate_checkpoint(cfg, str(checkpoint), allow_partial=False)
    metrics: dict[str, float] = command_line.build_runner(cfg, short_console=True).test()
    return metrics


def compare(models: Sequence[nn.Module], scores: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return parameters and metrics of the trained and of the distilled model."""
    numbers = [k for k, v in scores[0].items() if isinstance(v, (int, float))]
    necks = [nn.ModuleList(necks_of(model).values()) for model in models]
    return {
        'parameters of the neck': [sum(count_parameters(n)) for n in necks],
        'parameters of the model': [sum(count_parameters(m)) for m in models],
        **{name: [float(s[name]) for s in scores] for name in numbers},
    }


def show(title: str, found: dict[str, list[Any]], error: float) -> None:
    rows = []
    for name, (before, after) in found.items():
        values = dict(trained=before, distilled=after, difference=after - before)
        form = ',' if isinstance(before, int) else '.4f'
        rows.append({'': name, **{k: format(v, form) for k, v in values.items()}})
    print_table(title, rows)
    print(f'Squared error of the outputs in training: {100 * error:.2g} % of their variance.')


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.config_parser(__doc__)
    add = parser.add_argument
    add('checkpoint', help=CHECKPOINT)
    add('--block', default='transformer', choices=_BLOCKS, help='the layer; default: %(default)s')
    add('--width', type=int, help="of the layer; default: the encoder's")
    add('--heads', type=int, default=4, help='of the attention; default: %(default)s')
    add('--steps', type=int, default=2000, help='batches of training; default: %(default)s')
    add('--lr', type=float, default=2e-3, help='the highest rate; default: %(default)s')
    add('--seed', type=int, default=0)
    add('--out', type=Path, required=True, help='folder for config, checkpoint and comparison')
    args = parser.parse_args(argv)
    check('--steps', args.steps, least=1)
    check('--lr', args.lr, above=0)
    name = f'{Path(args.config).stem}_distilled'
    config, weights, table = (args.out / f'{name}.{end}' for end in ('py', 'pth', 'json'))
    if there := [str(path) for path in (config, weights, table) if path.exists()]:
        raise UserError(f'--out has {listing(there)} already. Fix: another folder.')
    cfg = ready(args.config, args.cfg_options, args.out)
    small = read_config(args.config, args.cfg_options, set_scope=False)
    if not replace_blocks(small.model, args):
        raise UserError(f"The model of '{args.config}' has no LLMBlockNeck.")
    text = release_config(small).pretty_text
    with in_scope_of(cfg):
        set_random_seed(args.seed)
        teacher, content = build_model(cfg, args.checkpoint)
        student, _ = build_model(small)
        keep_the_rest(student, teacher)
    scores = [test(copy.deepcopy(cfg), args.checkpoint)]
    with in_scope_of(cfg):
        log = imitate(teacher, student, cfg, args)
    meta = {k: v for k, v in files.meta_of(content).items() if k == 'dataset_meta'}
    meta.update(cfg=text, lm4ve_version=lm4ve.__version__)  # inferencers read `cfg`
    files.write_checkpoint(student.state_dict(), meta, weights)
    write_text(text, config)
    scores.append(test(ready(config, None, args.out), weights))
    found = compare((teacher, student), scores)
    settings = {k: v if isinstance(v, int | float) else str(v) for k, v in vars(args).items()}
    write_json(dict(settings, comparison=found, log=log), table)
    show(f'{args.block} for the block', found, log[-1]['error'])
    print(f'Written: {config} and {weights}')


if __name__ == '__main__':
    command_line.run_tool(main)
