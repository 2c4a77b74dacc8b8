"""What mixed precision keeps, counted on fake tensors, against a real step on the CPU."""

from collections import Counter

import torch
from torch import nn
from torch.nn import functional as F

from lm4ve.blocks import frozen_tensors
from lm4ve.cost.autocast import autocast_as_on_gpu
from lm4ve.cost.fake import fake_tensors
from lm4ve.cost.operations import storage_of
from lm4ve.cost.step import counting
from tests.helpers import models


def bytes_of_a_real_step(dtype):
    """Return the bytes that a real forward pass saves by dtype, the model's left out."""
    model, data = models.build('image')
    model.train()
    data = model.data_preprocessor(data, True)
    weights = [*model.parameters(), *model.buffers(), *frozen_tensors(model).values()]
    known = {storage_of(weight) for weight in weights}
    saved = Counter()
    kept = []

    def pack(tensor):
        kept.append(tensor)  # so that no memory is used twice
        if storage_of(tensor) not in known:
            known.add(storage_of(tensor))
            saved[tensor.dtype] += tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, autocast_as_on_gpu(dtype):
        model(**data, mode='loss')
    return saved


def bytes_counted(dtype):
    with fake_tensors():
        model, data = models.build('image')
        model.train()
        data = model.data_preprocessor(data, True)
        with counting(model) as counts, autocast_as_on_gpu(dtype):
            model(**data, mode='loss')
    return counts


def test_a_fake_step_in_bf16_saves_the_bytes_of_a_real_one():
    counts = bytes_counted(torch.bfloat16)
    saved = bytes_of_a_real_step(torch.bfloat16)
    counted = counts.saved.copy()
    # Casts of weights are saved in 16 bits, too.
    counted[torch.bfloat16] += counts.casts
    assert counted == saved
    assert counts.casts > 0
    assert saved[torch.bfloat16] > 0


def test_mixed_precision_saves_fewer_bytes_than_fp32():
    half = bytes_counted(torch.float16)
    full = bytes_counted(None)
    assert full.casts == 0
    assert torch.float16 not in full.saved
    assert sum(half.saved.values()) < sum(full.saved.values())


def test_a_weight_is_cast_once_for_all_its_calls():
    layer = nn.Linear(4, 8, bias=False)
    x = torch.randn(3, 4)
    with counting(layer) as counts, autocast_as_on_gpu(torch.bfloat16):
        layer(x)
        layer(x)
    # The input needs no gradient, so its product does not keep the weight.
    assert counts.casts == 0
    x.requires_grad_()
    with counting(layer) as counts, autocast_as_on_gpu(torch.bfloat16):
        layer(x) + layer(x)
    assert counts.casts == 4 * 8 * 2


def test_norms_and_softmax_run_in_fp32_as_on_a_gpu():
    x = torch.randn(2, 4, dtype=torch.float16)
    with autocast_as_on_gpu(torch.float16):
        assert F.layer_norm(x, (4,)).dtype == torch.float32
        assert x.softmax(-1).dtype == torch.float32
        assert F.gelu(x).dtype == torch.float16
        assert (x @ x.mT).dtype == torch.float16
    with torch.autocast('cpu', torch.float16):
        assert F.layer_norm(x, (4,)).dtype == torch.float16
