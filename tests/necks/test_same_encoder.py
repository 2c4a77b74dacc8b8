"""``from_pretrained`` refuses an encoder that computes something else with the same weights."""

import copy
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import lm4ve
from lm4ve.errors import UserError
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
    with pytest.raises(UserError, match=message):
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


def saved_with(model: nn.Module, folder, example) -> dict[str, Tensor]:
    """Save a model, and return its example."""
    lm4ve.save_pretrained(model, folder, example=example)
    tensors = load_file(folder / WEIGHTS_FILE)
    return {name: t for name, t in tensors.items() if name.startswith('lm4ve_example')}


def test_saving_an_example_leaves_the_model_as_it_is(tmp_path):
    x = batch().repeat(1, 1, 2)
    model = lm4ve.wrap(Attending(drop=0.5), 'layer', BLOCK).train()
    called = []
    model.llm_neck.register_forward_hook(lambda *_: called.append(1))
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    lm4ve.save_pretrained(model, tmp_path, example=x)
    assert not called
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    model(x).get('logits').sum().backward()
    assert called


def test_the_stored_output_is_the_encoders_without_its_block(tmp_path):
    x = batch().repeat(1, 1, 2)
    example = saved_with(lm4ve.wrap(Attending(), 'layer', BLOCK), tmp_path, x)
    plain = Attending().eval()(x)
    outputs = [example[f'lm4ve_example.output.{n}'] for n in range(2)]
    # In the order of the dict that it returns.
    torch.testing.assert_close(outputs[0], plain['tokens'])
    torch.testing.assert_close(outputs[1], plain['logits'])


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_the_example_is_computed_in_fp32(dtype, tmp_path):
    x = batch().repeat(1, 1, 2)
    model = lm4ve.wrap(Attending().to(dtype), 'layer', BLOCK)
    with torch.autocast('cpu', torch.bfloat16):
        example = saved_with(model, tmp_path, x)
    rounded = Attending().to(dtype).float().eval()(x)
    torch.testing.assert_close(example['lm4ve_example.output.1'], rounded['logits'])
    lm4ve.from_pretrained(Attending().to(dtype), tmp_path)
    refused(lambda: Attending(heads=4).to(dtype), {}, tmp_path, 'another encoder')


def test_an_encoder_in_16_bits_may_have_been_saved_with_32(tmp_path):
    x = batch().repeat(1, 1, 2)
    model = lm4ve.wrap(Attending(), 'layer', BLOCK)
    lm4ve.save_pretrained(model, tmp_path, example=x)
    lm4ve.from_pretrained(Attending().bfloat16(), tmp_path)


@pytest.mark.parametrize('place', ['tuple', 'dict'])
def test_arguments_are_given_as_the_model_takes_them(place, tmp_path):
    x, scale = batch().repeat(1, 1, 2), torch.tensor(2.0)
    example = (x, scale) if place == 'tuple' else dict(scale=scale, x=x)
    model = lm4ve.wrap(Attending(), 'layer', BLOCK)
    lm4ve.save_pretrained(model, tmp_path, example=example)
    lm4ve.from_pretrained(Attending(), tmp_path)
    refused(Attending, dict(heads=4), tmp_path, 'another encoder')


def test_an_encoder_with_compiled_parts_is_compared(tmp_path):
    x = batch().repeat(1, 1, 2)

    def make(**options) -> nn.Module:
        model = Attending(**options)
        model.compile(backend='inductor')
        return model

    lm4ve.save_pretrained(lm4ve.wrap(make(), 'layer', BLOCK), tmp_path, example=x)
    lm4ve.from_pretrained(make(), tmp_path)
    refused(make, dict(heads=4), tmp_path, 'another encoder')


def test_a_folder_cannot_have_an_example_of_any_size(tmp_path):
    x = batch().repeat(1, 1, 2)
    model = lm4ve.wrap(Attending(), 'layer', BLOCK)
    lm4ve.save_pretrained(model, tmp_path, example=x)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    tensors['lm4ve_example.input.0'] = torch.zeros(5000, 5, 16)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    refused(Attending, {}, tmp_path, 'at most 1,048,576')


def test_wrappers_around_the_model_make_no_difference(tmp_path):
    peft = pytest.importorskip('peft')
    x = batch().repeat(1, 1, 2)

    def adapted() -> nn.Module:
        torch.manual_seed(1)
        lora = peft.LoraConfig(r=2, target_modules=['head'], init_lora_weights=False)
        model = lm4ve.wrap(Attending(), 'layer', BLOCK)
        return peft.get_peft_model(model, lora)

    compiled = torch.compile(adapted(), backend='eager')
    lm4ve.save_pretrained(compiled, tmp_path, example=x)
    lm4ve.from_pretrained(adapted(), tmp_path)


@pytest.mark.parametrize('after', ['blocks.0', ['blocks.0', 'pair'], None])
def test_blocks_at_any_places_are_left_out(after, tmp_path):
    before = 'norm' if after is None else None
    model = wrapped(after=after, before=before)
    example = saved_with(model, tmp_path, batch())
    torch.testing.assert_close(example['lm4ve_example.output.0'], Encoder()(batch()))
    lm4ve.from_pretrained(Encoder(), tmp_path)


WRONG = [
    (torch.zeros(600, 5, 100), '1,200,000.*smaller'),
    (batch()[..., :4], 'does not run'),
    ('text', 'the argument 0 is a str'),
    ((batch(), 'blocks.0'), 'the argument 1 is a str'),
    (batch() * torch.nan, 'no finite numbers'),
]


@pytest.mark.parametrize('example, message', WRONG)
def test_an_example_that_proves_nothing_is_refused(example, message, tmp_path):
    model = wrapped()
    if 'smaller' in message:
        model.stem = nn.Linear(100, 16)
    with pytest.raises(UserError, match=f'example=.*{message}'):
        lm4ve.save_pretrained(model, tmp_path, example=example)
    assert not list(tmp_path.iterdir())


def test_an_example_in_float16_is_half_as_large(tmp_path):
    x = batch().repeat(1, 1, 2)
    model = lm4ve.wrap(Attending(), 'layer', BLOCK)
    example = saved_with(model, tmp_path, x.half())
    assert example['lm4ve_example.input.0'].dtype == torch.float16
    lm4ve.from_pretrained(Attending(), tmp_path)


# -------------------------------------------------------------- without an example
SETTINGS = [
    (hf_vit, 'layers.1', dict(num_attention_heads=4), 'num_attention_heads=2'),
    (hf_vit, 'layers.1', dict(hidden_act='relu'), "hidden_act='gelu'"),
    (hf_vit, 'layers.1', dict(layer_norm_eps=1e-6), 'layer_norm_eps=1e-12'),
]


@pytest.mark.parametrize('freeze', [False, True])
@pytest.mark.parametrize('make, place, options, message', SETTINGS)
def test_the_hosts_settings_show_another_encoder(
    make, place, options, message, freeze, tmp_path
):
    encoder = make()
    encoder.requires_grad_(not freeze)
    lm4ve.save_pretrained(lm4ve.wrap(encoder, place, BLOCK), tmp_path)
    lm4ve.from_pretrained(make(), tmp_path)
    refused(make, options, tmp_path, f'an encoder of {message}')


def test_settings_of_an_encoder_inside_a_module_are_compared(tmp_path):
    def make(**options) -> nn.Module:
        return Holding(hf_vit(**options))

    lm4ve.save_pretrained(lm4ve.wrap(make(), 'encoder.layers.1', BLOCK), tmp_path)
    lm4ve.from_pretrained(make(), tmp_path)
    refused(make, dict(hidden_act='relu'), tmp_path, "encoder.hidden_act='gelu'")


WITHOUT_EFFECT = dict(
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
    initializer_range=0.1,
    id2label={0: 'cat', 1: 'dog'},
    name_or_path='somewhere/else',
    dtype='bfloat16',
    attn_implementation='eager',
    field_of_a_later_release=1,
)


@pytest.mark.parametrize('field', WITHOUT_EFFECT)
def test_settings_without_an_effect_in_evaluation_may_differ(field, tmp_path):
    lm4ve.save_pretrained(lm4ve.wrap(hf_vit(), 'layers.1', BLOCK), tmp_path)
    lm4ve.from_pretrained(hf_vit(**{field: WITHOUT_EFFECT[field]}), tmp_path)


def test_timm_names_the_architecture_but_not_what_was_overridden(tmp_path):
    """``docs/extend/any_model.md`` says so."""
    names = ('vit_base_patch32_clip_224', 'vit_base_patch32_clip_quickgelu_224')
    model = lm4ve.wrap(timm_vit(name=names[0]), 'blocks.1', BLOCK)
    lm4ve.save_pretrained(model, tmp_path)
    refused(timm_vit, dict(name=names[1]), tmp_path, f"architecture='{names[0]}'")
    overridden = timm_vit(name=names[0], num_heads=4)
    lm4ve.from_pretrained(overridden, tmp_path)
