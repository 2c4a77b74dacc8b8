"""Let peft put LoRA on frozen projections, which are no ``nn.Linear``.

``LoraConfig`` has a table of layers for each kind of module. Importing this module adds
ours to every config, so that ``peft.get_peft_model`` accepts frozen projections. The
package imports it right after peft.
"""

from collections.abc import Callable
from typing import Any

import wrapt

# The module, not its names: it may be the one that imports peft just now.
from lm4ve.blocks import adapters
from lm4ve.blocks.frozen import Frozen


@wrapt.patch_function_wrapper('peft', 'LoraConfig.__post_init__')
def accept_frozen_layers(
    complete: Callable[..., None], config: Any, args: Any, kwargs: Any
) -> None:
    """Run ``LoraConfig.__post_init__``, then register our layer for frozen projections.

    wrapt calls it in the place of that method, with the method as ``complete``.
    """
    complete(*args, **kwargs)
    config._register_custom_module({Frozen: adapters.LoRALinear})
