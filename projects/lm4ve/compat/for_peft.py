"""LoRA of peft on frozen projections, which are no ``nn.Linear`` so that nothing overwrites them.

No defect: ``LoraConfig`` has a table of layers for each kind of module, and this file
adds ours to every config, so that ``peft.get_peft_model`` accepts them by name.
"""

import importlib
from collections.abc import Callable
from typing import Any

import peft
import wrapt


@wrapt.patch_function_wrapper(peft.LoraConfig, '__post_init__')
def accept_frozen_layers(
    make: Callable[..., None], config: Any, args: Any, kwargs: Any
) -> None:
    """Complete a config, with the layer for frozen projections."""
    make(*args, **kwargs)
    adapters = importlib.import_module('lm4ve.blocks.adapters')  # above this folder
    config._register_custom_module({adapters.Frozen: adapters.LoRALinear})
