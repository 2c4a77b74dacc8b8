"""Read what a config resolves to, for the page that lays it beside released recipes.

A value is named in one of two ways. A path leads through the resolved config::

    optim_wrapper.optimizer.lr
    train_dataloader.dataset.pipeline[SamplePoints:1].num

``[Type]`` is the first entry of a list with that type, ``[Type:1]`` the second. Where a
dict with a ``type`` lacks a field, the default of that class counts. A ``?`` at the end
allows that there is nothing, which reads 'none'.

Other values follow from what is built of the config: ``@name`` or ``@name:argument`` calls
the function of that name in :data:`PROBES`. The model is built at full size and without any
file, as for ``lm4ve cost``. Initial weights are measured: the whole model is built and
initialized, and ``@std:ffn`` is the deviation of the weights with 'ffn' in their names. What
a config asks for, ``init_cfg`` or ``init_std``, is no value of theirs and is refused, since
modules inside of a model initialize themselves after it.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from data_sizes import samples_of
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from lm4ve.cost import length_of_training
from lm4ve.cost.fake import build_fake, fake_config, fake_tensors
from lm4ve.cost.shapes import shape_of
from lm4ve.dry_run.schedule import Rates, follow_rates
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.runner.config.classes import classes_named
from lm4ve.runner.config.schedules import rate_of_optimizer, schedules_in

ROOT = Path(__file__).resolve().parents[2]
#: Stands for a field that is not there.
MISSING = object()
_STEP = re.compile(r'\[(?P<entry>[^\]]+)\]|(?P<field>[^.\[]+)')
#: Of the initial weights that are measured.
_SEED = 0
#: Fields that ask for initial weights, which others may replace.
_WISHES = ('init_cfg', 'init_std')


@dataclass(frozen=True)
class Initial:
    """An initial parameter.

    Attributes:
        shape (torch.Size): Its sizes; biases and gains of norms have one.
        std (float): The standard deviation of its values.
        largest (float): The largest magnitude of its values.
    """

    shape: torch.Size
    std: float
    largest: float


@dataclass
class Recipe:
    """A shipped config and what is built of it.

    Attributes:
        path (str): The config file, from the root of the project.
        options (dict): Overrides, as ``--cfg-options`` gives them.
    """

    path: str
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def cfg(self) -> Config:
        """The resolved config."""
        return read_config(ROOT / self.path, dict(self.options))

    @property
    def scope(self) -> str:
        """The scope of types without one."""
        return self.cfg.get('default_scope') or 'mmengine'

    @cached_property
    def groups(self) -> dict[str, tuple[float, float]]:
        """The learning rate and the weight decay of each trained parameter, by its name."""
        init_default_scope(self.scope)
        # The loss scaler of mixed precision asks for a GPU and changes no group.
        fields = dict(self.cfg.optim_wrapper, type='OptimWrapper')
        for name in ('loss_scale', 'dtype', 'use_fp16', 'accumulative_counts'):
            fields.pop(name, None)
        with fake_tensors():
            wrapper = build_optim_wrapper(self.model, Config(fields)._cfg_dict)
        names = {id(p): name for name, p in self.model.named_parameters()}
        groups = {}
        for group in wrapper.optimizer.param_groups:
            for parameter in group['params']:
                if parameter.requires_grad:
                    name = names[id(parameter)]
                    groups[name] = (group['lr'], group['weight_decay'])
        return groups

    @cached_property
    def model(self) -> nn.Module:
        """The model at full size, its tensors without values."""
        init_default_scope(self.scope)
        with fake_tensors():
            return build_fake(fake_config(self.cfg))

    @cached_property
    def initial(self) -> dict[str, Initial]:
        """The parameters that a training begins with, by name, less those of files.

        The whole model is built at full size and initialized. Modules without weights stand
        for its blocks.
        """
        init_default_scope(self.scope)
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            model = MODELS.build(_without_files(self.cfg).model)
            model.init_weights()
        of_files = tuple(f'{path}.' for path in _read_from_files(self.cfg.model))
        measures = {}
        for name, parameter in model.named_parameters():
            if not name.startswith(of_files):
                measures[name] = _measure(parameter.detach().double())
        return measures

    @property
    def samples(self) -> int:
        """How many entries the complete training data have."""
        return samples_of(self.cfg.train_dataloader.dataset)

    @cached_property
    def rates(self) -> Rates:
        """The learning rates from the first step to the last, of the optimizer's own rate."""
        cfg = self.cfg
        length = length_of_training(cfg, samples=self.samples)
        epochs = cfg.train_cfg.get('max_epochs')
        steps_of_epoch = length.steps // epochs if epochs else length.steps
        return follow_rates(cfg, rate_of_optimizer(cfg), length.steps, steps_of_epoch)


# ----------------------------------------------------------------------------------
# paths
def value_at(recipe: Recipe, path: str) -> Any:
    """Return the value at a path of a config.

    Args:
        recipe (Recipe): It has the config.
        path (str): See the head of this file.

    Raises:
        UserError: There is nothing, and the path does not end with '?'.
    """
    is_optional = path.endswith('?')
    value: Any = recipe.cfg._cfg_dict
    scope = recipe.scope
    for match in _STEP.finditer(path.rstrip('?')):
        if match['entry'] is not None:
            value = _entry(value, match['entry'])
        else:
            value = _field(value, match['field'], scope)
        if isinstance(value, Mapping):
            scope = value.get('_scope_', scope)
        if value is MISSING and is_optional:
            return None
        if value is MISSING:
            raise UserError(
                f"{recipe.path}: nothing at '{match[0]}' of '{path}'. "
                "Fix the path, or end it with '?'."
            )
    return value


def _entry(value: Any, name: str) -> Any:
    """Return an entry of a list by its index or its type; see the head of this file.

    A dict is returned if it has the type.
    """
    if isinstance(value, Mapping):
        if _kind(value) == name:
            return value
        return MISSING
    if not isinstance(value, (list, tuple)):
        return MISSING
    if name.isdigit():
        return _element(value, int(name))
    kind, _, number = name.partition(':')
    of_this_kind = [each for each in value if _kind(each) == kind]
    return _element(of_this_kind, int(number or 0))


def _element(values: Sequence[Any], index: int) -> Any:
    """Return an element of a list, or MISSING behind its end."""
    if index < len(values):
        return values[index]
    return MISSING


def _kind(value: Any) -> str:
    """Return the type of a dict without its scope; '' if it has none."""
    if not isinstance(value, Mapping):
        return ''
    kind = value.get('type', '')
    if not isinstance(kind, str):
        return str(kind.__name__)
    return kind.rpartition('.')[2]


def _field(value: Any, name: str, scope: str) -> Any:
    """Return a field of a dict, or the default of the class that its type names."""
    if not isinstance(value, Mapping):
        return MISSING
    if name in value:
        return value[name]
    if 'type' not in value:
        return MISSING
    kind = value['type']
    classes = classes_named(kind, name, scope) if isinstance(kind, str) else [kind]
    for cls in classes:
        for constructor in _constructors(cls):
            parameter = inspect.signature(constructor).parameters.get(name)
            if parameter is not None and parameter.default is not parameter.empty:
                return parameter.default
    return MISSING


def _constructors(cls: Any) -> Iterator[Callable[..., Any]]:
    """Yield a function, or the constructors of a class and its parents."""
    if not inspect.isclass(cls):
        yield cls
        return
    for owner in cls.__mro__:
        if '__init__' in vars(owner) and owner is not object:
            yield vars(owner)['__init__']


# ----------------------------------------------------------------------------------
# probes
def count_groups(recipe: Recipe, _: str) -> int:
    """Count the different pairs of learning rate and weight decay."""
    return len(set(recipe.groups.values()))


def rate_of(recipe: Recipe, part: str) -> str:
    """Return the learning rate of the parameters whose name contains ``part``."""
    return _one_or_range(_of_part(recipe, part, 0))


def decay_of(recipe: Recipe, part: str) -> str:
    """Return the weight decay of the parameters whose name contains ``part``."""
    return _one_or_range(_of_part(recipe, part, 1))


def decayed_vectors(recipe: Recipe, _: str) -> str:
    """Return 'no' if no vector decays (biases, gains of norms), else how many do."""
    decayed = 0
    for name, parameter in recipe.model.named_parameters():
        if parameter.ndim <= 1 and name in recipe.groups:
            _rate, decay = recipe.groups[name]
            decayed += decay > 0
    return f'{decayed} parameters' if decayed else 'no'


def decays(recipe: Recipe, part: str) -> bool:
    """Return whether all parameters whose name contains ``part`` decay."""
    return min(_of_part(recipe, part, 1)) > 0


def _of_part(recipe: Recipe, part: str, index: int) -> list[float]:
    found = [pair[index] for name, pair in recipe.groups.items() if part in name]
    if not found:
        raise UserError(
            f"{recipe.path}: no trained parameter has '{part}' in its name."
        )
    return found


def _one_or_range(values: list[float]) -> str:
    least, most = min(values), max(values)
    if least == most:
        return text_of(least)
    return f'{text_of(least)} to {text_of(most)}'


def steps_of_epoch(recipe: Recipe, gpus: str) -> int:
    """Return the steps of an epoch of the complete data on a number of GPUs."""
    length = length_of_training(recipe.cfg, int(gpus), samples=recipe.samples)
    return int(length.steps // recipe.cfg.train_cfg.max_epochs)


def first_rate(recipe: Recipe, _: str) -> float:
    """Return the learning rate of the first step."""
    return recipe.rates.first


def last_rate(recipe: Recipe, _: str) -> float:
    """Return the learning rate of the last step."""
    return recipe.rates.last


def rates_of_epochs(recipe: Recipe, epochs: str) -> str:
    """Return the rates of the first steps of epochs, to two digits: '0, 1, 20'.

    The steps of an epoch are 20 here, which changes a warm-up by steps in the third digit.
    """
    rates = []
    for epoch in epochs.split(', '):
        rate = recipe.rates.of_epochs[int(epoch)]
        rates.append(text_of(float(f'{rate:.1e}')))
    return ', '.join(rates)


def precision(recipe: Recipe, _: str) -> str:
    """Return the type of mixed precision, or that there is none."""
    wrapper = recipe.cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') != 'AmpOptimWrapper':
        return 'fp32'
    dtypes = {None: 'fp16', 'float16': 'fp16', 'bfloat16': 'bf16'}
    return f'{dtypes[wrapper.get("dtype")]} AMP'


def kept_checkpoint(recipe: Recipe, _: str) -> str:
    """Return which checkpoint a training keeps for its result."""
    hook = recipe.cfg.default_hooks.checkpoint
    best = hook.get('save_best')
    if best is None:
        return 'the last'
    return 'the last, and the best' if best == 'auto' else f'the best by {best}'


def average_decay(recipe: Recipe, _: str) -> str:
    """Return the decay of the average of the weights, or that there is none."""
    for hook in recipe.cfg.get('custom_hooks') or []:
        if _kind(hook).endswith('EMAHook'):
            return text_of(1 - hook.get('momentum', 0.0002))
    return 'none'


def momentum_of_batch_norm(recipe: Recipe, _: str) -> str:
    """Return the momentum of the model's batch norms."""
    init_default_scope(recipe.scope)
    with fake_tensors():
        model = MODELS.build(_without_files(recipe.cfg).model)
    momenta: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            momenta.append(module.momentum or 0.0)
    return _one_or_range(momenta)


def built(recipe: Recipe, path: str) -> Any:
    """Return an attribute of the built model: 'text_encoder.lstm.num_layers'."""
    value: Any = recipe.model
    for name in path.split('.'):
        if name.isdigit():
            value = value[int(name)]
        elif isinstance(value, Mapping):
            value = value[name]
        else:
            value = getattr(value, name)
    return value


def number_of(recipe: Recipe, place: str) -> int:
    """Count the entries of a list that have a type: 'path[Type]'."""
    path, _, kind = place.rstrip(']').rpartition('[')
    return sum(_kind(each) == kind for each in value_at(recipe, path))


def transforms_before(recipe: Recipe, place: str) -> str:
    """Return the types of a list of dicts before the first of a type: 'path[Type]'."""
    path, _, kind = place.rstrip(']').rpartition('[')
    found = []
    for each in value_at(recipe, path):
        if _kind(each) == kind:
            break
        found.append(_kind(each))
    return ', '.join(found) or 'none'


def quotient(recipe: Recipe, paths: str) -> float:
    """Return the quotient of two values, their paths separated by '/'."""
    above, _, below = paths.partition('/')
    return float(value_at(recipe, above.strip()) / value_at(recipe, below.strip()))


def accumulation(recipe: Recipe, _: str) -> int:
    """Return how many steps an update adds up."""
    return recipe.cfg.optim_wrapper.get('accumulative_counts') or 1


#: The schedules after a warm-up, in words.
_SCHEDULES = {
    'CosineAnnealingLR': 'cosine',
    'MultiStepLR': 'steps',
    'OneCycleLR': 'one cycle',
    'LinearLR': 'linear',
    'PolyLR': 'polynomial',
}


def schedule(recipe: Recipe, _: str) -> str:
    """Name the last schedule, which follows the warm-up."""
    schedules = schedules_in(recipe.cfg)
    if not schedules:
        return 'constant'
    return _SCHEDULES[_kind(schedules[-1][1])]


def warmup(recipe: Recipe, _: str) -> str:
    """Return the end of the first of several schedules, or that there is no warm-up."""
    schedules = schedules_in(recipe.cfg)
    if len(schedules) < 2:
        return 'none'
    return text_of(schedules[0][1].get('end'))


def layers(recipe: Recipe, _: str) -> str:
    """Return the indices of the block's layers in the language model."""
    block = _block(recipe)
    depth = shape_of(block['checkpoint'])['num_hidden_layers']
    indices = [index % depth for index in block.get('layers', (-1,))]
    return ', '.join(str(index) for index in indices)


def final_norm(recipe: Recipe, _: str) -> str:
    """Say whether the language model's final norm follows the block."""
    return 'unit gain' if _block(recipe).get('final_norm', True) else 'none'


def _block(recipe: Recipe) -> Any:
    """Return the fields of the neck's block."""
    neck = _find_neck(recipe.cfg.model)
    if neck is None:
        raise UserError(f'{recipe.path} has no neck with a block.')
    return neck['block']


def std_of(recipe: Recipe, part: str) -> str:
    """Return the standard deviation of initial weights, to two digits.

    Args:
        recipe (Recipe): It has the config.
        part (str): Of the names of the weights: parameters of two or more dimensions.

    Returns:
        str: A number, or the least and the most where weights differ.
    """
    found = _initial_of(recipe, part, lambda initial: len(initial.shape) > 1)
    stds = [each.std for each in found]
    fewest_draws = min(each.shape.numel() for each in found)
    digits = 2
    if fewest_draws < 1000:
        digits = 1  # The second one is chance.
    is_one_distribution = max(stds) <= 1.05 * min(stds)
    if is_one_distribution:
        return measured(sum(stds) / len(stds), digits)
    least = measured(min(stds), digits)
    most = measured(max(stds), digits)
    if least == most:
        return least
    return f'{least} to {most}'


def bias_of(recipe: Recipe, part: str) -> str:
    """Return the largest magnitude of initial biases, to two digits.

    Args:
        recipe (Recipe): It has the config.
        part (str): Of the names of the biases: parameters of one dimension.
    """
    found = _initial_of(recipe, part, lambda initial: len(initial.shape) <= 1)
    return measured(max(each.largest for each in found))


def _initial_of(
    recipe: Recipe, part: str, is_wanted: Callable[[Initial], bool]
) -> list[Initial]:
    """Return the initial parameters with ``part`` in their names, of those wanted.

    Raises:
        UserError: There is none.
    """
    found = []
    for name, initial in recipe.initial.items():
        if part in name and is_wanted(initial):
            found.append(initial)
    if not found:
        raise UserError(
            f"{recipe.path}: no such parameter has '{part}' in its name, or its values "
            'are read from a file.'
        )
    return found


def transforms_after(recipe: Recipe, place: str) -> str:
    """Return the types of a list of dicts after the last of a type: 'path[Type]'."""
    path, _, kind = place.rstrip(']').rpartition('[')
    found: list[str] = []
    for each in value_at(recipe, path):
        found.append(_kind(each))
        if _kind(each) == kind:
            found.clear()
    return ', '.join(found) or 'none'


class StandIn(nn.Module):
    """Stands for a frozen block: it has its width and no weights.

    Args:
        embed_dims (int): The width.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims

    def forward(
        self, x: Tensor, padding_mask: Any = None, queries: Any = None
    ) -> Tensor:
        """Return the tokens as they are."""
        return x


def _measure(x: Tensor) -> Initial:
    """Measure a parameter."""
    largest = x.abs().max().item()
    # torch's truncated normal gives its bound, here 100 deviations, once in 16 million draws.
    near = (x - x.mean()).abs() <= 10 * x.std(correction=0)
    return Initial(x.shape, x[near].std(correction=0).item(), largest)


def _without_files(cfg: Config) -> Config:
    """Return a copy of a config whose model is built and initialized without any file."""
    cfg = deepcopy(cfg)
    _stand_in(cfg.model)
    try:
        return fake_config(cfg)
    except UserError:
        # A model of no task of ours, such as mmsegmentation's, reads no other files.
        return cfg


def _stand_in(node: Any) -> None:
    """Let modules without weights stand for blocks, and leave other checkpoints out.

    Args:
        node: The model's config or a value in it; it is changed, with everything below it.
    """
    if isinstance(node, (list, tuple)):
        for child in node:
            _stand_in(child)
    if not isinstance(node, dict):
        return
    for name, child in node.items():
        if _kind(child) == 'LLMBlock':
            shape = child.get('arch') or shape_of(child['checkpoint'])
            node[name] = StandIn(shape['hidden_size'])
        elif _kind(child) == 'Pretrained':
            node[name] = None
        else:
            _stand_in(child)
    if _kind(node) == 'PointCloudClassifier':
        node['checkpoint'] = None


def _read_from_files(node: Any, path: str = '') -> Iterator[str]:
    """Yield the names of a model's modules that begin with the weights of a file.

    Args:
        node: The model's config, or a value in it.
        path (str): The name of its module in the model.
    """
    if not isinstance(node, Mapping):
        return
    if node.get('checkpoint') and node.get('pretrained', True):
        # A model's own checkpoint is that of its encoder.
        yield path or 'backbone'
    for name, child in node.items():
        is_of_same_module = name == 'init_cfg' or (
            name == 'backbone' and _kind(node) == 'LLMBlockInsert'
        )
        inner = path if is_of_same_module else f'{path}.{name}'.removeprefix('.')
        yield from _read_from_files(child, inner)


def _find_neck(node: Any) -> Any:
    """Return the first dict of a config that is a neck with a block, or None."""
    if isinstance(node, Mapping):
        if _kind(node) == 'LLMBlockNeck':
            return node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            found = _find_neck(child)
            if found is not None:
                return found
    return None


#: What ``@name`` calls.
PROBES: dict[str, Callable[[Recipe, str], Any]] = {
    'groups': count_groups,
    'rate': rate_of,
    'decay': decay_of,
    'decayed_vectors': decayed_vectors,
    'steps_of_epoch': steps_of_epoch,
    'first_rate': first_rate,
    'last_rate': last_rate,
    'rates_of_epochs': rates_of_epochs,
    'precision': precision,
    'checkpoint': kept_checkpoint,
    'average': average_decay,
    'momentum_of_batch_norm': momentum_of_batch_norm,
    'built': built,
    'number': number_of,
    'before': transforms_before,
    'after': transforms_after,
    'warmup': warmup,
    'decays': decays,
    'quotient': quotient,
    'accumulation': accumulation,
    'schedule': schedule,
    'layers': layers,
    'final_norm': final_norm,
    'std': std_of,
    'bias': bias_of,
}


# ----------------------------------------------------------------------------------
# texts
_PLACE = re.compile(r'\{([^{}]+)\}')


def fill(recipe: Recipe, template: str, synonyms: Mapping[str, str]) -> str:
    """Replace each ``{path}`` or ``{@probe}`` of a template by its value.

    Args:
        recipe (Recipe): It has the values.
        template (str): The template.
        synonyms (Mapping): Values that are written in other words.
    """

    def value(match: re.Match[str]) -> str:
        text = text_of(read(recipe, match[1]))
        return synonyms.get(text, text)

    return _PLACE.sub(value, template)


def places_in(template: str) -> list[str]:
    """Return the paths and probes of a template."""
    return _PLACE.findall(template)


def read(recipe: Recipe, place: str) -> Any:
    """Return the value of a path or a probe.

    Raises:
        UserError: There is none, or it is what the config asks initial weights to be.
    """
    for wish in _WISHES:
        if wish in place:
            raise UserError(
                f"'{place}' is what the config asks for, and modules may initialize "
                "themselves after it. Measure: '{@std:PART OF A PARAMETER'S NAME}'."
            )
    if not place.startswith('@'):
        return value_at(recipe, place)
    name, _, argument = place[1:].partition(':')
    if name not in PROBES:
        raise UserError(f"There is no probe '@{name}'. Known: {', '.join(PROBES)}.")
    return PROBES[name](recipe, argument)


def measured(value: float, digits: int = 2) -> str:
    """Return a measured number as the page writes it: 0.009, 2e-5."""
    return f'{value:.{digits}g}'.replace('e-0', 'e-')


def text_of(value: Any) -> str:
    """Return a value as the page writes it: numbers with few digits."""
    if value is None:
        return 'none'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return f'({", ".join(text_of(each) for each in value)})'
    return str(value)


def _number(value: float) -> str:
    """Return a number as people write it: 5e-4 rather than 0.0005, 0.05 as it is."""
    if value != 0 and abs(value) < 0.01:
        digits, _, exponent = f'{value:.3e}'.partition('e')
        return f'{float(digits):g}e{int(exponent)}'
    return f'{value:.6g}'
