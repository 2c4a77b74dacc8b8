"""What ``dtype='auto'`` of a block stands for: bfloat16 where a device computes it, else float32.

Gradients below 6e-8 are zero in float16, so a float16 block needs a loss scaler. A recipe
without one takes 'auto': bfloat16 has the range of float32.
"""

from collections.abc import Container

import torch
from mmengine.device import get_device

#: The value of the field ``dtype``.
AUTO = 'auto'
#: The least compute capability of NVIDIA's GPUs that multiply bfloat16 (Ampere). Older
#: ones emulate it, more slowly than they compute float32.
_BFLOAT16 = (8, 0)


def resolve_dtype(dtype: str, choices: Container[str]) -> str:
    """Return the dtype that the field of a block stands for on this machine.

    Args:
        dtype (str): The field. All but 'auto' are returned as they are.
        choices (Container[str]): The types that the block may have.

    Returns:
        str: For 'auto' 'bfloat16' or 'float32'.
    """
    if dtype != AUTO:
        return dtype
    # Models are built on the CPU and moved by the runner to the device of MMEngine's
    # choice, which is asked for here.
    if 'bfloat16' in choices and computes_bfloat16(get_device()):
        return 'bfloat16'
    return 'float32'


def computes_bfloat16(device: str) -> bool:
    """Return whether a kind of device has instructions for products in bfloat16.

    Of several GPUs all must have them, so that the processes of a machine agree. Only
    kinds of devices whose instructions torch reports are known.

    Args:
        device (str): MMEngine's name of it: 'cuda', 'cpu', ...
    """
    if device == 'cuda':
        return _every_gpu_computes_bfloat16()
    if device == 'cpu':
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False


def _every_gpu_computes_bfloat16() -> bool:
    """Return whether all GPUs that this process sees compute in bfloat16."""
    if torch.version.hip is not None:
        return True  # torch: every GPU of AMD that it supports does
    for index in range(torch.cuda.device_count()):
        if torch.cuda.get_device_capability(index) < _BFLOAT16:
            return False
    return True
