"""The initial values of a neck's mappers, compared with a formula."""

import math

from torch import Tensor, nn

#: Initializers of a neck, as its field ``init_cfg``.
TRUNCATED_NORMAL = dict(type='TruncNormal', layer='Linear', std=0.02)
TORCH_DEFAULT = dict(type='lm4ve.TorchDefault', layer='Linear')
#: So many standard errors may an estimate lie off; by chance one of two million does.
STANDARD_ERRORS = 5


def mapper_layers(neck: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of a neck's mappers and residual, without adapters."""
    layers = {}
    for name, module in neck.named_modules():
        is_mapper = name.startswith(('mapper_in', 'mapper_out', 'skip'))
        if is_mapper and type(module) is nn.Linear and '.lora_' not in name:
            layers[name] = module
    return layers


def assert_initial_values(neck: nn.Module, init_cfg: dict) -> None:
    """Check the mappers of a neck against the formula of an initializer.

    Args:
        neck (LLMBlockNeck): A neck that has been initialized.
        init_cfg (dict): :data:`TRUNCATED_NORMAL` or :data:`TORCH_DEFAULT`.
    """
    layers = mapper_layers(neck)
    assert len(layers) >= 2
    for name, layer in layers.items():
        if init_cfg == TORCH_DEFAULT:
            limit = 1 / math.sqrt(layer.in_features)
            assert_uniform(f'{name}.weight', layer.weight, limit)
            if layer.bias is not None:
                assert_uniform(f'{name}.bias', layer.bias, limit)
        else:
            assert init_cfg == TRUNCATED_NORMAL
            assert_normal(f'{name}.weight', layer.weight, init_cfg['std'])
            if layer.bias is not None:
                assert layer.bias.eq(0).all(), name


def assert_uniform(name: str, values: Tensor, limit: float) -> None:
    """Check that values are uniform between ``-limit`` and ``limit``.

    The fourth moment of this distribution is 9/5 of the squared variance.
    """
    assert values.abs().max() <= limit * (1 + 1e-6), name
    _assert_std(name, values, limit / math.sqrt(3), kurtosis=9 / 5)


def assert_normal(name: str, values: Tensor, std: float) -> None:
    """Check that values are normal around 0; the fourth moment is 3 squared variances."""
    # Of a normal distribution 8 % lie beyond the limit of a uniform one of the same std.
    assert (values.abs() > math.sqrt(3) * std).any(), name
    _assert_std(name, values, std, kurtosis=3)


def _assert_std(name: str, values: Tensor, std: float, kurtosis: float) -> None:
    """Check a standard deviation around zero within its statistical error.

    The mean of n squares has the relative standard error ``sqrt((kurtosis - 1) / n)``,
    and its root half of that.
    """
    n = values.numel()
    found = values.detach().double().square().mean().sqrt().item()
    bound = STANDARD_ERRORS * math.sqrt((kurtosis - 1) / n) / 2
    error = abs(found / std - 1)
    assert error <= bound, f'{name}: std {found}, expected {std} within {bound:.1%}'
