"""Compare parts of lm4ve on the CPU and on the second device; print what differs as JSON.

    python -m tests.helpers.device_checks GROUP [GROUP ...]

A process of its own, since the device stays defined in it. One line a check: ``group``,
``check``, ``difference`` (the largest relative one of outputs and gradients), and
``waits`` of the forward and backward pass by kind and line.
"""

import copy
import functools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ['HF_HUB_OFFLINE'] = '1'

import cv2
import numpy as np
import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn

import lm4ve.openmmlab
from lm4ve.necks import LLMBlockNeck
from lm4ve.study.heads import training
from lm4ve.study.heads.head import HeadSpec
from lm4ve.study.pictures.data import ProbeData, read_data
from lm4ve.study.tokens import features as extraction
from lm4ve.study.tokens.encoders import load_encoder
from lm4ve.study.tokens.features import Features
from tests.helpers import second_device
from tests.helpers.families import FAMILIES
from tests.helpers.models import ARCH, BLOCK
from tests.helpers.necks.encoder import Encoder, batch, loud, step
from tests.helpers.pictures import compute_features, write_folder
from tests.helpers.second_device import NAME, WAITS

#: Width of the tokens of the necks below.
C = 16
#: What a check is called, a function that builds a module, and its inputs.
Case = tuple[str, Callable[[], nn.Module], dict[str, Any]]

PADDING = torch.tensor([[False] * 4 + [True] * 2, [False] * 6])
QUERIES = {
    'all': None,
    'first': slice(0, 1),
    'some': torch.tensor([[0, 3], [4, 2]]),
}
FAMILY = {name: dict(type='LLMBlock', arch=FAMILIES[name]) for name in FAMILIES}


def tokens(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape or (2, 6, C), generator=generator)


def necks(block: dict, **options: Any) -> Callable[[], nn.Module]:
    """Return a function that builds a neck with mappers whose effect shows."""

    def build() -> nn.Module:
        neck = LLMBlockNeck(C, block, **options)
        if 'mapper' not in options:
            loud(neck)
        return neck

    return build


def in_training(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a function that builds a neck in the middle of its training."""

    def build_there() -> nn.Module:
        neck: Any = build()
        neck.set_progress(0.5)
        return neck

    return build_there


# ------------------------------------------------------------------------- groups
def paths() -> Iterator[Case]:
    """Yield how the low rank of the input may be used, for any queries and padding."""
    for low_rank in ('off', 'fold', 'absorb', 'auto'):
        for name, queries in QUERIES.items():
            for padding in (None, PADDING):
                words = (
                    f'{low_rank}, {name}{", padding" if padding is not None else ""}'
                )
                call = dict(feats=tokens(), padding_mask=padding, queries=queries)
                yield words, necks(BLOCK, low_rank=low_rank), call


def blocks() -> Iterator[Case]:
    """Yield kinds of blocks and their masks."""
    call = dict(feats=tokens(), padding_mask=PADDING)
    options: dict[str, dict] = {
        'rotary': dict(rotary=True),
        'llm4seg': dict(rotary='llm4seg'),
        'causal': dict(causal=True),
        'causal and rotary': dict(causal=True, rotary=True),
        'causal suffix': dict(causal_suffix=2),
        'without final norm': dict(final_norm=False),
        'trained': dict(trainable='all'),
        'trained norms': dict(trainable='norms'),
    }
    for name, option in options.items():
        yield name, necks(dict(BLOCK, **option)), call
    soft = dict(BLOCK, causal=dict(soft=0.2))
    yield 'soft mask', in_training(necks(soft)), dict(feats=tokens())
    for name in ('gemma2', 'gpt2', 'bert', 'falcon-40b', 't5'):
        yield name, necks(FAMILY[name]), call
    for name in ('mistral', 'gemma2'):
        yield f'window of {name}', necks(dict(FAMILY[name], causal=True)), call


def variants() -> Iterator[Case]:
    """Yield variants of the neck."""
    whole: dict[str, dict] = {
        'class token': dict(out_type='cls_token'),
        'mean': dict(out_type='avg_featmap', num_extra_tokens=1),
        'recomputed': dict(with_cp=True),
        'gate': dict(residual='outer', gate='tanh'),
        'mapper': dict(mapper=dict(bias=True, depth=2)),
        'batch norm': dict(norm_cfg=dict(type='BN')),
        'group norm': dict(norm_cfg=dict(type='GN', num_groups=4)),
        'lora on mappers': dict(lora=dict(r=2)),
    }
    for name, options in whole.items():
        yield name, necks(BLOCK, **options), dict(feats=tokens())
    branch = in_training(necks(BLOCK, branch=True))
    yield 'branch', branch, dict(feats=tokens())
    shuffled = necks(dict(BLOCK, causal=True), shuffle_tokens=True)
    yield 'shuffled tokens', shuffled, dict(feats=tokens())
    yield 'map', necks(BLOCK), dict(feats=tokens(2, C, 3, 2))
    yield 'clip', necks(BLOCK), dict(feats=tokens(2, C, 2, 3, 2))
    lora = dict(BLOCK, trainable='lora', lora=dict(r=2, targets='all-linear'))
    for low_rank in ('off', 'fold', 'absorb'):
        yield f'lora, {low_rank}', necks(lora, low_rank=low_rank), dict(feats=tokens())


def sixteen_bits() -> Iterator[Case]:
    """Yield blocks whose numbers have fewer bits."""
    for dtype in ('bfloat16', 'float16'):
        for low_rank in ('off', 'fold', 'absorb'):
            options = dict(low_rank=low_rank)
            block = dict(BLOCK, dtype=dtype)
            yield f'{dtype}, {low_rank}', necks(block, **options), dict(feats=tokens())


def hosts() -> Iterator[Case]:
    """Yield wrapped models of other libraries, and a plain one."""
    pixels = tokens(2, 3, 16, 16)

    def wrapped(
        make: Callable[[], nn.Module], after: str, **options: Any
    ) -> Callable[[], nn.Module]:
        def build() -> nn.Module:
            return lm4ve.wrap(make(), after, BLOCK, **options)

        return build

    yield 'timm ViT', wrapped(timm_vit, 'blocks.1'), dict(x=pixels)
    swin = wrapped(timm_swin, 'layers.1', layout='BHWC')
    yield 'timm Swin', swin, dict(x=pixels)
    yield 'torchvision ResNet', wrapped(resnet, 'layer3'), dict(x=pixels)
    vit = wrapped(transformers_vit, 'vit.layers.1')
    yield 'transformers ViT', vit, dict(pixel_values=pixels)
    yield 'mmpretrain ViT', wrapped(mmpretrain_vit, 'layers.1'), dict(x=pixels)
    encoder = wrapped(torch_encoder, 'layers.1')
    yield 'nn.TransformerEncoder', encoder, dict(src=tokens())
    call = dict(src=tokens(), src_key_padding_mask=PADDING)
    yield 'nn.TransformerEncoder with padding', encoder, call
    yield 'plain module', wrapped(Encoder, 'blocks.0'), dict(x=batch())


def timm_vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    sizes = dict(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    return VisionTransformer(**sizes, num_classes=3)


def timm_swin() -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    sizes = dict(
        img_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2)
    )
    return SwinTransformer(**sizes, window_size=4)


def resnet() -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)


def transformers_vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
    )
    return ViTForImageClassification(config)


def mmpretrain_vit() -> nn.Module:
    from mmpretrain.models.backbones import VisionTransformer

    sizes = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=24)
    return VisionTransformer(arch=sizes, img_size=16, patch_size=8)


def torch_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(C, 2, 24, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def adapters() -> Iterator[Case]:
    """Yield models with adapters of peft."""
    import peft

    def build() -> nn.Module:
        model = lm4ve.wrap(timm_vit(), 'blocks.1', dict(BLOCK, trainable='all'))
        options = dict(r=2, init_lora_weights=False, target_modules='all-linear')
        return peft.get_peft_model(model, peft.LoraConfig(**options))

    yield 'all linear layers', build, dict(x=tokens(2, 3, 16, 16))


# --------------------------------------------------- groups of other things than modules
def tools() -> Iterator[tuple[str, Callable[[str], dict[str, Tensor]]]]:
    """Yield functions that run something on a device and return its results."""
    yield 'fused neck', fused
    yield 'average of weights', averaged
    yield 'head of a study', studied
    for name, file in (
        ('vit-demo_none_digits', 'picture.png'),
        ('pointbert-demo_none_primitives', 'cloud.npy'),
    ):
        yield f'inference of {name}', functools.partial(inferred, name, file)


def encoders() -> Iterator[tuple[str, Callable[[str], dict[str, Tensor]]]]:
    """Yield encoders of ``lm4ve try``, of which each library moves in its own way."""
    with tempfile.TemporaryDirectory() as folder:
        data = read_data(str(write_folder(Path(folder), _=dict(a=5, b=5))))
        for name, size in (
            ('vit-demo_none_digits', None),
            ('timm/vit_tiny_patch16_224', 32),
            ('torchvision/swin_v2_t', 64),
        ):
            yield name, functools.partial(encoded, name, size, data)


def mixed_precision() -> Iterator[tuple[str, Callable[[str], dict[str, Tensor]]]]:
    """Yield trainings with autocast and a scaler that skips a step."""
    for dtype in (torch.bfloat16, torch.float16):
        yield str(dtype), functools.partial(scaled, dtype)


def scaled(dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Train three steps with autocast and a scaler, the second of which overflows."""
    model = lm4ve.wrap(Encoder(), 'blocks.0', BLOCK).to(device)
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1
    )
    scaler = torch.amp.GradScaler(device, init_scale=8.0)
    for factor in (1.0, math.inf, 1.0):
        with torch.autocast(device, dtype):
            out = model(batch().to(device))
        assert out.dtype == dtype
        scaler.scale(factor * out.float().square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() == 4.0
    return dict(model.named_parameters())


def fused(device: str) -> dict[str, Tensor]:
    """Compute with a neck that is fused on the device."""
    neck = necks(BLOCK, out_type='cls_token')().to(device)
    with torch.no_grad():
        return dict(out=lm4ve.fuse(neck)(tokens().to(device)))


def averaged(device: str) -> dict[str, Tensor]:
    """Train three steps, and average the weights as an EMA does."""
    model = lm4ve.wrap(Encoder(), 'blocks.0', BLOCK).to(device)
    average = ExponentialMovingAverage(model, momentum=0.1)
    for _ in range(3):
        step(model, batch().to(device))
        average.update_parameters(model)
    return average.state_dict()


def studied(device: str) -> dict[str, Tensor]:
    """Train a head of ``lm4ve try`` for three steps on made-up tokens."""
    rng = np.random.default_rng(0)
    shape = (40, 6, C)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        stored = np.memmap(path / 'tokens.f16', np.float16, 'w+', shape=shape)
        stored[:] = rng.normal(size=shape)
        train, val, test = np.split(np.arange(40), [20, 30])
        data = ProbeData(
            name='data',
            labels=rng.integers(2, size=40),
            splits=dict(train=train, val=val, test=test),
            classes=('a', 'b'),
            fingerprint='',
            items=(),
        )
        features = Features(shape, data, '', path, '<encoder>')
        head = HeadSpec('frozen', 'frozen', '', dict(arch=ARCH))
        with pytest.MonkeyPatch.context() as patch:
            # What a command finds when it starts: a GPU, or the CPU.
            patch.setattr(training, 'find_device', lambda _: torch.device(device))
            trainer = training.Trainer(features)
            pictures = data.splits['train']
            model = trainer.train(head, 1e-3, 0, 3, pictures, 'float32')
            predicted = trainer.predict(model, test, head.reads, 'float32')
    return dict(model.named_parameters(), predicted=torch.from_numpy(predicted))


def encoded(
    name: str, size: int | None, data: ProbeData, device: str
) -> dict[str, Tensor]:
    """Compute an encoder's features of pictures, as ``lm4ve try`` does."""
    encoder = load_encoder(name, 'none', size)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, 'find_device', lambda _: torch.device(device))
        found = compute_features(encoder, data, Path(folder))
        tokens = np.array(found.tokens)
    for tensor in encoder.module.state_dict().values():
        assert tensor.device.type == 'cpu'
    return dict(tokens=torch.from_numpy(tokens))


def inferred(name: str, file: str, device: str) -> dict[str, Tensor]:
    """Predict for a file, as ``lm4ve.apis`` does for its user."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, file))
        if file.endswith('.npy'):
            np.save(path, rng.normal(size=(1100, 3)))
        else:
            cv2.imwrite(path, rng.integers(0, 255, (8, 8, 3), np.uint8))
        torch.manual_seed(0)
        (found,) = lm4ve.apis.inference(name, None, path, device=device)
    return dict(scores=torch.as_tensor(found['pred_scores']))


GROUPS = dict(
    paths=paths,
    blocks=blocks,
    variants=variants,
    sixteen_bits=sixteen_bits,
    hosts=hosts,
    adapters=adapters,
    tools=tools,
    encoders=encoders,
    mixed_precision=mixed_precision,
)
#: Groups that yield functions of a device; the others yield modules.
OF_FUNCTIONS = ('tools', 'encoders', 'mixed_precision')


# ------------------------------------------------------------------------ running
def moved(value: Any, device: str) -> Any:
    """Return a call's argument on a device."""
    return value.to(device) if isinstance(value, Tensor) else value


def results(
    module: nn.Module, call: dict[str, Any], device: str
) -> tuple[dict[str, Tensor], list]:
    """Run a module forward and backward.

    Args:
        module (nn.Module): On the device.
        call (dict): Its arguments, on the CPU.
        device (str): Where to run it.

    Returns:
        tuple[dict[str, Tensor], list]: The output and the gradients, on the CPU, and
        the waits.
    """
    call = {name: moved(value, device) for name, value in call.items()}
    torch.manual_seed(0)
    with WAITS.counting() as waits:
        out = tensor_of(module(**call))
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    product = out * direction.to(out)
    with WAITS.counting() as waits_of_backward:
        product.sum().backward()
    waits += waits_of_backward
    found = dict(out=out.detach().cpu())
    for name, parameter in module.named_parameters():
        assert parameter.device.type == device, name
        if parameter.grad is not None:
            found[name] = parameter.grad.cpu()
    return found, [[*key, count] for key, count in sorted(waits.items())]


def tensor_of(out: Any) -> Tensor:
    """Return the tensor in what a model returns."""
    if isinstance(out, Tensor):
        return out
    if isinstance(out, tuple):
        return tensor_of(out[-1])
    return out.logits


def compare_modules(
    build: Callable[[], nn.Module], call: dict[str, Any]
) -> tuple[float, list]:
    """Run a module on both devices; return the largest relative difference and waits."""
    torch.manual_seed(0)
    here = build()
    here.train()
    there = copy.deepcopy(here)
    there.to(NAME)
    expected, _ = results(here, call, 'cpu')
    found, waits = results(there, call, NAME)
    return largest_difference(found, expected), waits


def compare_runs(run: Callable[[str], dict[str, Tensor]]) -> tuple[float, list]:
    """Run a function on both devices; return the largest relative difference."""
    both = []
    for device in ('cpu', NAME):
        torch.manual_seed(0)
        both.append({name: value.detach().cpu() for name, value in run(device).items()})
    expected, found = both
    return largest_difference(found, expected), []


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest relative difference between tensors of the same names."""
    assert found.keys() == expected.keys()
    worst = 0.0
    for name, value in expected.items():
        error = (found[name].double() - value.double()).norm()
        worst = max(worst, float(error / value.double().norm().clamp_min(1e-2)))
    return worst


def main() -> None:
    second_device.define()
    torch.set_num_threads(1)
    with second_device.SecondDevice():
        for group in sys.argv[1:]:
            for name, *check in GROUPS[group]():
                if group in OF_FUNCTIONS:
                    difference, waits = compare_runs(*check)
                else:
                    difference, waits = compare_modules(*check)
                line = dict(group=group, check=name, difference=difference, waits=waits)
                print(json.dumps(line), flush=True)


if __name__ == '__main__':
    main()
