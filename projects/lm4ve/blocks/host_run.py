"""Run a whole language model without values, to see what it does around its layers.

Which arguments a model gives its layers, and which norm it applies after them, is written
in the ``forward`` of its own class alone: class names and the order of attributes differ
from family to family. So the model runs on the meta device, where nothing is computed.
Its layers only hand on their input, since routers of experts need values.
"""

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lm4ve.blocks.host_trial import fill_with_noise

#: What models and modules raise that are called with something else than they take. Each
#: can only be seen by a call.
#:
#: - AttributeError, TypeError: they read an input that was left out, or a layer's output
#:   in another form.
#: - ValueError: they name the inputs that they need.
#: - IndexError: they look for more dimensions, or more entries of a layer's output.
#: - RuntimeError: shapes do not fit, or they read values, which the meta device has not.
NOT_TAKEN = (AttributeError, TypeError, ValueError, IndexError, RuntimeError)
#: A norm has at most a few numbers for each channel.
_MOST_NUMBERS_A_CHANNEL = 4
#: Epsilons of norms change tokens of variance 1 by less than this.
_LARGEST_CHANGE = 1e-2


class ModelRun(NamedTuple):
    """What a model did around its layers.

    Attributes:
        arguments (dict[int, dict]): The number of each layer that was called -> the
            arguments by name, the tokens among them.
        after (list[str]): The paths of the modules outside of the layers that were
            called with tokens after the last layer, and returned tokens.
        hands_on (bool): Whether the model returned the last layer's tokens as they were.
        failure (str): Why the run ended early; '' if the model returned.
    """

    arguments: dict[int, dict[str, Any]]
    after: list[str]
    hands_on: bool
    failure: str


def run_without_values(model: Any, layers: str, is_encoder: bool) -> ModelRun:
    """Run a model on the meta device, and note what it calls.

    Models differ in the inputs that they take, and in whether a layer returns its tokens
    or a tuple of these. Both are tried; the first run that reaches its end counts, else
    the one that called the most layers.

    Args:
        model (PreTrainedModel): On the meta device. It is changed: its layers only hand
            on their input.
        layers (str): The path of the list of its layers.
        is_encoder (bool): Whether it is the encoder of an encoder-decoder.

    Raises:
        Exception: Whatever the model raises that is not in :data:`NOT_TAKEN`.
    """
    model.eval()
    # With a cache, a causal model does not look for packed sequences, which takes values.
    # Encoders of encoder-decoders refuse one.
    model.config.use_cache = not is_encoder
    width = model.get_input_embeddings().weight.shape[1]
    embedded = torch.zeros(1, 2, width, device='meta')
    ids = torch.zeros(1, 2, dtype=torch.long, device='meta')
    # Without a mask of their own, some encoders make one and read its values.
    open_mask = torch.zeros(1, 1, 2, 2, device='meta')
    inputs: list[dict[str, Tensor]] = [
        dict(inputs_embeds=embedded),
        dict(input_ids=ids),
        dict(inputs_embeds=embedded, attention_mask=open_mask),
    ]
    runs = []
    for given in inputs:
        for form in (_as_tensor, _as_tuple):
            run = _run(model, layers, given, form)
            if not run.failure:
                return run
            runs.append(run)
    return max(runs, key=lambda run: len(run.arguments))


def _as_tensor(tokens: Tensor) -> Any:
    """Return a layer's output in the form of most families."""
    return tokens


def _as_tuple(tokens: Tensor) -> Any:
    """Return a layer's output in the form of families that also return something else."""
    return (tokens,)


def _run(
    model: Any,
    layers: str,
    inputs: dict[str, Tensor],
    form: Callable[[Tensor], Any],
) -> ModelRun:
    """Run a model once; the arguments are :func:`run_without_values`'."""
    arguments: dict[int, dict[str, Any]] = {}
    after: list[str] = []
    handed_on: list[Tensor] = []

    def stand_in(layer: nn.Module, index: int) -> Callable[..., Any]:
        """Return what runs in place of a layer's ``forward``."""
        signature = inspect.signature(type(layer).forward)

        def forward(*args: Any, **kwargs: Any) -> Any:
            noted = _by_name(signature, layer, args, kwargs)
            tokens = next(iter(noted.values()))
            _check_form(tokens)
            arguments[index] = noted
            after.clear()
            handed_on.append(tokens)
            return form(tokens)

        return forward

    def note_call(path: str) -> Callable[..., None]:
        """Return a hook that notes a call with tokens which returned tokens."""

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            first = next(iter([*args, *kwargs.values()]), None)
            if _are_tokens(first) and _are_tokens(output):
                after.append(path)

        return hook

    for index, layer in enumerate(model.get_submodule(layers)):
        layer.forward = stand_in(layer, index)
    hooks = []
    for path, module in modules_outside(model, layers):
        hook = module.register_forward_hook(note_call(path), with_kwargs=True)
        hooks.append(hook)
    failure = ''
    output = None
    try:
        output = model(**inputs)[0]
        _check_form(output)
    except NOT_TAKEN as e:
        failure = f'{type(e).__name__}: {" ".join(str(e).split())}'
    finally:
        for hook in hooks:
            hook.remove()
    hands_on = bool(handed_on) and output is handed_on[-1]
    return ModelRun(arguments, after, hands_on, failure)


def modules_outside(model: nn.Module, layers: str) -> Iterable[tuple[str, nn.Module]]:
    """Yield the modules that are not in the layers, nor hold them, by their paths."""
    for path, module in model.named_modules():
        is_layers_or_within = f'{path}.'.startswith(f'{layers}.')
        holds_layers = path == '' or layers.startswith(f'{path}.')
        if not is_layers_or_within and not holds_layers:
            yield path, module


def _by_name(
    signature: inspect.Signature, layer: nn.Module, args: Any, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a layer's call by their names, those in ``**kwargs`` too."""
    noted: dict[str, Any] = {}
    bound = signature.bind(layer, *args, **kwargs).arguments
    del bound[next(iter(bound))]  # the layer itself
    for name, value in bound.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            noted.update(value)
        else:
            noted[name] = value
    return noted


def _check_form(tokens: Any) -> None:
    """Refuse tokens that lost a dimension, as where a tensor is indexed like a tuple.

    Raises:
        ValueError: It is one of :data:`NOT_TAKEN`.
    """
    if not isinstance(tokens, Tensor) or tokens.dim() != 3:
        raise ValueError('it takes or returns something else than tokens [B, N, D]')


def _are_tokens(value: Any) -> bool:
    """Return whether a value is a batch of token vectors ``[B, N, ...]``."""
    return isinstance(value, Tensor) and value.dim() == 3


@torch.no_grad()
def behaves_like_norm(module: nn.Module, width: int) -> bool:
    """Return whether a module is a norm of single tokens over ``width`` channels.

    It is one if its output does not change when each token is multiplied by a number of
    its own, but with the tokens' directions.

    Args:
        module (nn.Module): Any module, which may be on the meta device. It stays as it
            is.
        width (int): D.
    """
    numbers = sum(parameter.numel() for parameter in module.parameters())
    if numbers > _MOST_NUMBERS_A_CHANNEL * width:
        return False
    norm = copy.deepcopy(module).eval()
    fill_with_noise(norm)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 8, width, generator=generator)
    factors = 2.0 ** torch.arange(8)[:, None]
    try:
        plain = norm(tokens)
        scaled = norm(tokens * factors)
    except NOT_TAKEN:
        return False
    if not _are_tokens(plain) or plain.shape != tokens.shape:
        return False
    largest = plain.abs().max()
    is_invariant = bool((scaled - plain).abs().max() <= _LARGEST_CHANGE * largest)
    differences = (plain[:, 1:] - plain[:, :1]).abs().amax(dim=-1)
    reads_tokens = bool((differences > _LARGEST_CHANGE * largest).all())
    return is_invariant and reads_tokens
