"""``from_pretrained`` refuses an encoder that computes something else with the same weights."""

import copy
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import lm4ve
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks.pretrained import WEIGHTS_FILE
from tests.helpers.models import BLOCK
from tests.helpers.necks.encoder import Encoder, batch, wrapped

PIXELS = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Attending(nn.Module):
    """An encoder of nobody's library, of which heads, activation and epsilon show in no weight."""

    def __init__(
        self, heads: int = 2, act: str = 'gelu', eps: float = 1e-5, drop: float = 0.0
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(
            16, heads, 32, drop, act, eps, batch_first=True
        )
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> dict[str, Tensor]:
        x = self.layer(x)
        if scale is not None:
            x = x * scale
        x = self.norm(x.mT).mT
        return dict(tokens=x, logits=self.head(x.mean(1)))


def timm_vit(**options) -> nn.Module:
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    sizes = dict(img_size=16, patch_size=8, embed_dim=24, depth=2, num_classes=3)
    name = options.pop('name', 'vit_tiny_patch16_224')
    return timm.create_model(name, **{**sizes, 'num_heads': 3, **options})


def hf_vit(**options) -> nn.Module:
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    sizes = dict(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    config = transformers.ViTConfig(**{**sizes, **options})
    return transformers.ViTModel(config)


class Holding(nn.Module):
    """A module around an encoder of a library."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder(pixels).last_hidden_state


#: What makes an encoder, the place, its input; and arguments by which it differs.
EXAMPLES = [
    (Attending, 'layer', batch().repeat(1, 1, 2), dict(heads=4)),
    (Attending, 'layer', batch().repeat(1, 1, 2), dict(act='relu')),
    (Attending, 'layer', batch().repeat(1, 1, 2), dict(eps=1e-3)),
    (timm_vit, 'blocks.1', PIXELS, dict(num_heads=4)),
    (timm_vit, 'blocks.1', PIXELS, dict(act_layer='quick_gelu')),
    (timm_vit, 'blocks.1', PIXELS, dict(norm_layer=nn.LayerNorm)),
    (hf_vit, 'layers.1', PIXELS, dict(num_attention_heads=4)),
    (hf_vit, 'layers.1', PIXELS, dict(hidden_act='relu')),
    (hf_vit, 'layers.1', PIXELS, dict(layer_norm_eps=1e-4)),
]


def refused(make: Callable[..., nn.Module], options, folder, message: str) -> None:
    """Load into a differing encoder and expect one message, and nothing changed."""
    model = make(**options)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message):
        lm4ve.from_pretrained(model, folder)
    assert not hasattr(model, 'llm_neck')
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize('freeze', [False, True])
@pytest.mark.parametrize('make, place, x, options', EXAMPLES)
def test_an_example_shows_another_encoder(make, place, x, options, freeze, tmp_path):
    encoder = make()
    encoder.requires_grad_(not freeze)
    model = lm4ve.wrap(encoder, place, BLOCK)
    lm4ve.save_pretrained(model, tmp_path, example=x)
    assert (tmp_path / WEIGHTS_FILE).stat().st_size < 1 << 20
    lm4ve.from_pretrained(make(), tmp_path)
    lm4ve.from_pretrained(lm4ve.wrap(make(), place, BLOCK), tmp_path)
    refused(make, options, tmp_path, 'another encoder|an encoder of')
