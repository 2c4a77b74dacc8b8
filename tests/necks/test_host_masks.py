"""Padding never changes a sample's result, whatever a host calls its mask."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lm4ve
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockInsert
from lm4ve.necks.host_masks import MASKS
from tests.helpers.models import BLOCK
from tests.helpers.necks.encoder import loud
from tests.helpers.necks.foreign import replicate

# With a mask that says nothing, a host computes the same bits as without it.
pytestmark = pytest.mark.bitwise

#: Channels, and tokens of a sample.
C = 16
N = 6
#: The second sample has only so many tokens; the rest is padding.
SHORT = 4
#: bool ``[2, N]``, True where there is a token.
KEPT = torch.tensor([[True] * N, [True] * SHORT + [False] * (N - SHORT)])


def tokens() -> torch.Tensor:
    """Return the same random tokens of two samples every time, float64 ``[2, N, C]``."""
    return torch.randn(
        2, N, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def wrap_in_float64(model: nn.Module, after: str, **options) -> nn.Module:
    """Wrap a model, in float64 and with mappers whose effect shows."""
    torch.manual_seed(2)
    lm4ve.wrap(model, after, BLOCK, low_rank='off', **options)
    loud(model.llm_neck)
    return model.double()


class TakesAnyMask(nn.Module):
    """A host without attention: only the block mixes tokens. It takes any argument."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.last = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x, *more, **masks):
        return self.last(self.layer(x))


def distance_to_unpadded(model: nn.Module, x: torch.Tensor, **masks) -> float:
    """Return how far outputs of the padded second sample are from those of it alone."""
    alone = model(x[1:, :SHORT])
    return (model(x, **masks)[1:, :SHORT] - alone).abs().max().item()


#: Distances of equal outputs, in float64.
SAME = 1e-12


# ------------------------------------------------------------------------------------
# the table
def added(kept: torch.Tensor, hidden: float = -torch.inf) -> torch.Tensor:
    """Return a mask as floats that are added to scores."""
    return torch.zeros(kept.shape).masked_fill(~kept, hidden)


#: ``KEPT`` of pairs, ``[2, 1, N, N]``.
PAIRS = KEPT[:, None, None].expand(2, 1, N, N)
#: Masks by the number of their dimensions and by their reading.
FORMS = {
    (2, 'padding'): [~KEPT, (~KEPT).long(), added(KEPT)],
    (2, 'keep'): [KEPT, KEPT.long(), KEPT.float()],
    (2, 'by values'): [KEPT, KEPT.long(), KEPT.half(), added(KEPT, -10000)],
    (4, 'by values'): [PAIRS, PAIRS.long(), PAIRS.float(), added(PAIRS)],
}
ROWS = [
    pytest.param(name, mask, id=f'{name}-{dims}-{mask.dtype}')
    for name, row in MASKS.items()
    for dims, reading in row.items()
    for mask in FORMS[dims, reading]
]


@pytest.mark.parametrize('name, mask', ROWS)
def test_every_row_of_the_table_keeps_padding_out(name, mask):
    model = wrap_in_float64(TakesAnyMask(), 'layer')
    assert distance_to_unpadded(model, tokens(), **{name: mask}) < SAME
    assert distance_to_unpadded(model, tokens()) > 0.01


#: A mask of another sequence or of pairs, and the padding that it stands beside.
BESIDE = [
    ('memory_key_padding_mask', ~KEPT, 'tgt_key_padding_mask'),
    ('memory_mask', torch.ones(N, N), 'tgt_key_padding_mask'),
    ('encoder_attention_mask', KEPT, 'attention_mask'),
]


@pytest.mark.parametrize('name, mask, own', BESIDE)
def test_the_mask_of_another_sequence_says_nothing_beside_ones_own(name, mask, own):
    model, x = wrap_in_float64(TakesAnyMask(), 'layer'), tokens()
    told = {own: ~KEPT if 'padding' in own else KEPT}
    assert distance_to_unpadded(model, x, **told, **{name: mask}) < SAME
    with pytest.raises(UserError, match=f"'{name}'"):
        model(x, **{name: mask})


#: Names that are told, not known.
UNKNOWN = (
    'valid_mask pixel_mask patch_attention_mask pixel_attention_mask src_mask attnMask '
    'lang_attention_mask visual_attention_mask decoder_attention_mask bool_masked_pos '
    'global_attention_mask is_index_masked head_mask mask_matrix mask_time_indices'
).split()


@pytest.mark.parametrize('name', UNKNOWN)
def test_a_mask_of_another_name_is_refused_with_the_line_to_write(name):
    model = wrap_in_float64(TakesAnyMask(), 'layer')
    message = f"TakesAnyMask is given '{name}'.*lm4ve.wrap.*mask=dict.{name}='keep'"
    for shape in [(2, N), (2, 2, 3), (2, 1, N, N), (4, N, N), (N, N)]:
        with pytest.raises(UserError, match=message):
            model(tokens(), **{name: torch.ones(shape)})


#: Arguments of a call, and the error.
REFUSED = [
    (dict(masks=[KEPT]), "'masks' list"),
    (dict(attention_mask=KEPT[:, :SHORT]), r'\[2, 4\], but .* 2 samples of 6 tokens'),
    (dict(attention_mask=KEPT[:, None]), r"'attention_mask' \[2, 1, 6\].*cannot read"),
    (dict(attention_mask={'full_attention': None}), "'attention_mask' dict"),
    (dict(attn_mask=KEPT), r"'attn_mask' \[2, 6\].*cannot read"),
    (dict(attention_mask=KEPT, key_padding_mask=~KEPT), 'either could be'),
    (
        dict(attention_mask=KEPT, input_ids=KEPT, pixel_values=KEPT),
        'input_ids and pixel_values',
    ),
    (dict(cu_seqlens=torch.tensor([0, 6, 10])), 'packs several samples'),
    (dict(cu_seq_lens_q=torch.tensor([0, 6, 10])), 'packs several samples'),
    (dict(attention_mask=~KEPT & False), 'every token of a sample'),
]
#: Values that are none of the mask's.
OTHER_VALUES = [
    dict(attention_mask=KEPT.long() + KEPT),  # as Longformer's 0, 1 and 2
    dict(attention_mask=KEPT.float() * 0.5),
    dict(attention_mask=torch.zeros(2, N)),
    dict(attention_mask=added(KEPT, -100)),
    dict(attention_mask=added(KEPT) + KEPT),
    dict(attention_mask=-KEPT.long()),
    dict(attention_mask=added(PAIRS) + 0.1),
    dict(attention_mask=torch.full((2, N), torch.nan)),
    dict(key_padding_mask=(~KEPT).float()),
    dict(key_padding_mask=-(~KEPT).long()),
    dict(patch_valid=added(KEPT)),
]
REFUSED += [(masks, 'values are not those of') for masks in OTHER_VALUES]


@pytest.mark.parametrize('masks, message', REFUSED)
def test_a_mask_that_is_not_clear_is_refused(masks, message):
    with pytest.raises(UserError, match=message):
        wrap_in_float64(TakesAnyMask(), 'layer')(tokens(), **masks)


def test_settings_whose_name_has_mask_are_no_masks():
    model, x = wrap_in_float64(TakesAnyMask(), 'layer'), tokens()
    assert torch.equal(
        model(x, mask=True, mask_ratio=0.75, mask_type='block'), model(x)
    )


# ------------------------------------------------------------------- what the user says
#: How a mask is read (``mask=`` of ``wrap``), and a mask of this kind.
SAID = [
    ('keep', KEPT.long()),
    ('padding', ~KEPT),
    ('additive', torch.zeros(2, N).masked_fill(~KEPT, -torch.inf)),
    ('keep', KEPT[:, None, None].expand(2, 3, N, N)),
    ('pixels', KEPT.view(2, 2, 3)),
]


@pytest.mark.parametrize('reading, mask', SAID)
@pytest.mark.parametrize('name', ['valid', 'some_mask', 'attention_mask'])
def test_a_mask_reads_as_the_user_says(name, reading, mask):
    model = wrap_in_float64(TakesAnyMask(), 'layer', mask={name: reading})
    assert distance_to_unpadded(model, tokens(), **{name: mask}) < SAME


#: What the user says of a mask that reads otherwise.
MISTOLD = [
    ('keep', added(KEPT)),
    ('keep', added(PAIRS)),
    ('additive', KEPT.float()),
    ('additive', KEPT.long()),
    ('padding', KEPT.float()),
    ('pixels', added(KEPT).view(2, 2, 3)),
]


@pytest.mark.parametrize('reading, mask', MISTOLD)
def test_a_mask_that_does_not_read_as_the_user_says_is_refused(reading, mask):
    model = wrap_in_float64(TakesAnyMask(), 'layer', mask=dict(valid=reading))
    with pytest.raises(UserError, match=f"'valid', whose values.*reads '{reading}'"):
        model(tokens(), valid=mask)


def test_compiled_code_gives_nan_where_values_are_wrong():
    model = wrap_in_float64(TakesAnyMask(), 'layer')
    model = torch.compile(model, backend='eager', fullgraph=True)
    assert model(tokens(), attention_mask=KEPT.long()).isfinite().all()
    assert model(tokens(), attention_mask=KEPT.long() * 2).isnan().all()


def test_the_user_may_say_that_nothing_is_padded():
    model = wrap_in_float64(
        TakesAnyMask(), 'layer', mask=dict(seen_mask='ignore', attention_mask='ignore')
    )
    masks = dict(seen_mask=KEPT, attention_mask=KEPT)
    assert torch.equal(model(tokens(), **masks), model(tokens()))


class Plain(TakesAnyMask):
    def forward(self, x, valid=None):
        return self.last(self.layer(x))


def test_a_name_or_reading_that_there_is_not_is_refused_at_once():
    with pytest.raises(UserError, match="mask names 'vald'.*Did you mean 'valid'"):
        wrap_in_float64(Plain(), 'layer', mask=dict(vald='keep'))
    with pytest.raises(UserError, match='must be one of padding, keep'):
        wrap_in_float64(Plain(), 'layer', mask=dict(valid='kept'))
    assert (
        distance_to_unpadded(
            wrap_in_float64(Plain(), 'layer', mask=dict(valid='keep')),
            tokens(),
            valid=KEPT,
        )
        < SAME
    )


class Batch(TakesAnyMask):
    def forward(self, batch):
        return self.last(self.layer(batch['x']))


@pytest.mark.parametrize(
    'name, said', [('attention_mask', None), ('valid', dict(valid='keep'))]
)
def test_a_mask_within_a_batch_is_found(name, said):
    model, x = wrap_in_float64(Batch(), 'layer', mask=said), tokens()
    both = model({'x': x, name: KEPT})
    torch.testing.assert_close(both[1:, :SHORT], model(dict(x=x[1:, :SHORT])))
    with pytest.raises(UserError, match="'my_mask'"):
        model(dict(x=x, my_mask=KEPT))


class Inputs:
    """A batch as an object, such as DETR's NestedTensor."""

    def __init__(self, x, **masks) -> None:
        self.x = x
        vars(self).update(masks)


def test_a_mask_deep_in_a_batch_is_found():
    class Deep(TakesAnyMask):
        def forward(self, batch):
            return self.last(self.layer(batch['video']['x']))

    class Object(TakesAnyMask):
        def forward(self, batch):
            return self.last(self.layer(batch.x))

    x = tokens()
    deep = wrap_in_float64(Deep(), 'layer')
    alone = deep(dict(video=dict(x=x[1:, :SHORT])))
    both = deep(dict(video=dict(x=x, attention_mask=KEPT)))
    torch.testing.assert_close(both[1:, :SHORT], alone)
    with pytest.raises(UserError, match="'attention_mask' list"):
        text = dict(attention_mask=KEPT.flip(0))
        deep(dict(video=dict(x=x, attention_mask=KEPT), text=text))
    batch = wrap_in_float64(Object(), 'layer')
    torch.testing.assert_close(batch(Inputs(x, attention_mask=KEPT))[1:, :SHORT], alone)
    with pytest.raises(UserError, match="'mask'"):
        batch(Inputs(x, mask=~KEPT))


def test_masks_without_a_name_of_their_own_are_refused():
    class Rest(TakesAnyMask):
        def forward(self, x, *masks):
            return self.last(self.layer(x))

    model = wrap_in_float64(Rest(), 'layer')
    model(tokens())
    with pytest.raises(UserError, match="'masks' tuple"):
        model(tokens(), KEPT)


def test_several_places_read_one_mask():
    torch.manual_seed(2)
    model = lm4ve.wrap(TakesAnyMask(), ['layer', 'last'], BLOCK, low_rank='off')
    for neck in model.llm_neck:
        loud(neck)
    assert distance_to_unpadded(model.double(), tokens(), attention_mask=KEPT) < SAME


def test_backbones_of_configs_have_the_same_field():
    neck = dict(type='LLMBlockNeck', in_channels=C, block=BLOCK)
    model = LLMBlockInsert(Plain(), 'layer', neck, mask=dict(valid='keep'))
    loud(model.llm_neck)
    assert distance_to_unpadded(model.double(), tokens(), valid=KEPT) < SAME


def test_what_the_user_says_is_saved_and_loaded(tmp_path):
    model = wrap_in_float64(Plain(), 'layer', mask=dict(valid='keep'))
    lm4ve.save_pretrained(model, tmp_path)
    loaded = lm4ve.from_pretrained(Plain().double(), tmp_path).double()
    assert torch.equal(loaded(tokens(), KEPT), model(tokens(), KEPT))
    with pytest.raises(UserError, match='^mask=.* of lm4ve.wrap differs from'):
        lm4ve.from_pretrained(
            wrap_in_float64(Plain(), 'layer', mask=dict(valid='padding')), tmp_path
        )


class WithClassToken(TakesAnyMask):
    """Puts a class token before its tokens, which the mask does not count."""

    def forward(self, x, attention_mask=None):
        return self.last(self.layer(torch.cat([x[:, :1] * 0 + 1, x], dim=1)))[:, 1:]


def test_class_tokens_in_front_are_no_padding():
    model = wrap_in_float64(WithClassToken(), 'layer', num_extra_tokens=1)
    assert distance_to_unpadded(model, tokens(), attention_mask=KEPT) < SAME
    with pytest.raises(UserError, match='num_extra_tokens'):
        wrap_in_float64(WithClassToken(), 'layer')(tokens(), attention_mask=KEPT)


def test_masks_of_pixels_mark_positions_of_a_map():
    class Map(TakesAnyMask):
        def forward(self, x, pixel_mask=None):
            return self.layer(x)

    model = Map()
    model.layer = nn.Conv2d(C, C, 4, stride=4, bias=False)
    wrap_in_float64(model, 'layer', mask=dict(pixel_mask='pixels'))
    x = torch.randn(2, C, 8, 12, dtype=torch.float64)
    kept = torch.ones(2, 8, 12)
    kept[1, :, 7:] = 0  # a part of the second column of patches
    x[1, :, :, 7:] = 0
    alone = model(x[1:, :, :, :8])
    torch.testing.assert_close(model(x, kept)[1:, :, :, :2], alone)


# ----------------------------------------------------------------------------------------
# torch
def encoder(batch_first: bool, **options) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(C, 2, 24, 0.0, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2, **options)


class ByPosition(nn.Module):
    """Passes the mask by position, as many hosts do."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x, padding=None):
        for layer in self.encoder.layers:
            x = layer(x, None, padding)
        return x


PLACES = ['layers.0', 'layers.1', 'layers.0.linear1', 'layers.1.linear2']


@pytest.mark.parametrize('after', PLACES)
@pytest.mark.parametrize('batch_first', [False, True])
@pytest.mark.parametrize('mode', ['train', 'eval', 'nested'])
def test_padding_of_torchs_encoder_stays_out(after, batch_first, mode):
    nested = mode == 'nested'
    model = wrap_in_float64(encoder(batch_first, enable_nested_tensor=nested), after)
    model.train(mode == 'train')
    x = tokens() if batch_first else tokens().transpose(0, 1)
    with torch.no_grad():
        both = model(x, src_key_padding_mask=~KEPT)
        alone = model(x[1:, :SHORT] if batch_first else x[:SHORT, 1:])
    both = both if batch_first else both.transpose(0, 1)
    alone = alone if batch_first else alone.transpose(0, 1)
    torch.testing.assert_close(both[1:, :SHORT], alone)


def test_masks_of_pairs_of_torch_are_no_padding():
    pairs = torch.ones(N, N).triu(1).bool()
    for after in ('layers.0', 'layers.1.linear2', 'layers.0.self_attn'):
        model, x = wrap_in_float64(encoder(True), after), tokens()
        both = model(x, mask=pairs, src_key_padding_mask=~KEPT)
        alone = model(x[1:, :SHORT], mask=pairs[:SHORT, :SHORT])
        torch.testing.assert_close(both[1:, :SHORT], alone)
        heads = (pairs | ~KEPT[:, None]).repeat_interleave(2, dim=0)
        with pytest.raises(UserError, match=r"mask' \[4, 6, 6\]"):
            model(x, mask=heads)


def test_masks_by_position_and_at_the_input_are_found():
    for options in (
        dict(after='encoder.layers.1'),
        dict(after=None, before='encoder.layers.1'),
    ):
        model = ByPosition(encoder(True))
        torch.manual_seed(2)
        lm4ve.wrap(model, block=BLOCK, low_rank='off', **options)
        loud(model.llm_neck)
        model.double()
        assert distance_to_unpadded(model, tokens(), padding=~KEPT) < SAME


# -------------------------------------------------------------------- ways to be called
def test_a_call_that_fails_leaves_no_mask_behind():
    class Fails(TakesAnyMask):
        def forward(self, x, attention_mask=None, fails=False):
            if fails:
                raise RuntimeError
            return super().forward(x)

    model = wrap_in_float64(Fails(), 'layer')
    with pytest.raises(RuntimeError):
        model(tokens(), attention_mask=KEPT, fails=True)
    x = tokens()
    assert torch.equal(model.last(model.layer(x)), model(x))


def test_threads_have_masks_of_their_own():
    model, x = wrap_in_float64(TakesAnyMask(), 'layer'), tokens()
    masks = [KEPT, KEPT.flip(0), torch.ones_like(KEPT), None]
    expected = [model(x, attention_mask=mask) for mask in masks]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda mask: model(x, attention_mask=mask), masks * 8))
    for i, out in enumerate(found):
        assert torch.equal(out, expected[i % 4])


def test_copies_and_replicas_read_their_own_masks():
    model, x = wrap_in_float64(TakesAnyMask(), 'layer').eval(), tokens()
    expected = model(x, attention_mask=KEPT)
    assert torch.equal(copy.deepcopy(model)(x, attention_mask=KEPT), expected)
    torch.testing.assert_close(replicate(model)(x, attention_mask=KEPT), expected)


def test_a_compiled_host_reads_masks_in_one_graph():
    model, x = wrap_in_float64(TakesAnyMask(), 'layer'), tokens()
    compiled = torch.compile(copy.deepcopy(model), backend='eager', fullgraph=True)
    for mask in (KEPT, KEPT.flip(0), None):
        torch.testing.assert_close(
            compiled(x, attention_mask=mask), model(x, attention_mask=mask)
        )


class Checkpointed(nn.Module):
    """Recomputes its layers, which get the mask themselves or do not."""

    def __init__(self, reentrant: bool, told: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([TakesAnyMask(), TakesAnyMask()])
        self.reentrant, self.told, self.recomputes = reentrant, told, True

    def forward(self, x, attention_mask=None):
        for layer in self.layers:
            given = (x, attention_mask) if self.told else (x,)
            if self.recomputes:
                x = checkpoint(layer, *given, use_reentrant=self.reentrant)
            else:
                x = layer(*given)
        return x


class Layer(TakesAnyMask):
    def forward(self, x, attention_mask=None):
        return super().forward(x)


@pytest.mark.parametrize('reentrant', [False, True])
@pytest.mark.parametrize('after', ['layers.1', 'layers.0.layer'])
def test_a_recomputed_place_reads_the_same_mask(reentrant, after):
    model = Checkpointed(reentrant, told=True)
    model.layers = nn.ModuleList([Layer(), Layer()])
    wrap_in_float64(model, after)
    gradients = []
    for recomputes in (False, True):
        model.recomputes = recomputes
        x = tokens().requires_grad_()
        first, second = (
            model(x, KEPT),
            model(x * 2, KEPT.flip(0)),
        )  # backward in another order
        (first.square()[KEPT].sum() + second.square()[KEPT.flip(0)].sum()).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('reentrant', [False, True])
@pytest.mark.parametrize(
    'after', ['encoder.layer.1', 'encoder.layer.0.attention.output.dense']
)
def test_checkpointing_of_transformers_keeps_the_mask(after, reentrant):
    sizes = dict(SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = wrap_in_float64(text_model('Bert', sizes), after).train()
    ids = torch.randint(5, 38, (2, N), generator=torch.Generator().manual_seed(1))
    gradients = []
    for recomputes in (False, True):
        if recomputes:
            options = dict(use_reentrant=reentrant)
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        model.zero_grad()
        for mask in (
            KEPT.long(),
            torch.ones(2, N, dtype=torch.long),
        ):  # padded, and not
            out = model(input_ids=ids, attention_mask=mask)[0]
            out[:, :SHORT].square().sum().backward()
        gradients.append(model.embeddings.word_embeddings.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('reentrant', [False, True])
def test_a_recomputed_place_that_lost_its_mask_is_refused(reentrant):
    class Silent(TakesAnyMask):
        def forward(self, x):
            return super().forward(x)

    model = Checkpointed(reentrant, told=False)
    model.layers = nn.ModuleList([Silent(), Silent()])
    wrap_in_float64(model, 'layers.1')
    with pytest.raises(UserError, match='recomputed in the backward pass'):
        model(tokens().requires_grad_(), KEPT).sum().backward()


@pytest.mark.parametrize('reentrant', [False, True])
def test_a_recomputed_place_does_not_read_another_mask_than_before(reentrant):
    model = Checkpointed(reentrant, told=False)
    model.layers = nn.ModuleList(
        [Layer(), Layer()]
    )  # with an argument that is not given
    model.forward = lambda x, valid: Checkpointed.forward(model, x)
    wrap_in_float64(model, 'layers.1', mask=dict(valid='keep'))
    with pytest.raises(UserError, match='recomputed in the backward pass'):
        model(tokens().requires_grad_(), KEPT).sum().backward()


# ---------------------------------------------------------------------------------
# transformers
SIZES = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    vocab_size=40,
    max_position_embeddings=64,
)
T5 = dict(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
XLM = dict(vocab_size=40, emb_dim=16, n_layers=2, n_heads=2, max_position_embeddings=64)
DISENTANGLED = dict(relative_attention=True, pos_att_type=['c2p', 'p2c'])
TEXTS = [
    ('Bert', SIZES, ['encoder.layer.1', 'encoder.layer.1.output.dense', 'embeddings']),
    (
        'Roberta',
        dict(SIZES, pad_token_id=1),
        ['encoder.layer.1', 'encoder.layer.0.intermediate'],
    ),
    (
        'DistilBert',
        dict(dim=16, n_layers=2, n_heads=2, hidden_dim=24, vocab_size=40),
        ['transformer.layer.1', 'transformer.layer.0.ffn'],
    ),
    (
        'Electra',
        dict(SIZES, embedding_size=8),
        ['encoder.layer.1', 'embeddings_project'],
    ),
    ('Albert', dict(SIZES, embedding_size=8), ['encoder.embedding_hidden_mapping_in']),
    ('MPNet', dict(SIZES, pad_token_id=1), ['encoder.layer.1']),
    ('XLM', dict(XLM, pad_index=2), ['layer_norm2.1', 'ffns.0']),
    (
        'Deberta',
        dict(SIZES, **DISENTANGLED),
        ['encoder.layer.1', 'encoder.layer.0.output'],
    ),
    (
        'DebertaV2',
        dict(SIZES, **DISENTANGLED),
        ['encoder.layer.1', 'encoder.layer.0.output'],
    ),
    (
        'ModernBert',
        dict(SIZES, local_attention=4, pad_token_id=0),
        ['layers.1', 'layers.0.mlp'],
    ),
    ('T5Encoder', T5, ['encoder.block.1', 'encoder.block.0.layer.1']),
    (
        'CLIPText',
        dict(SIZES, eos_token_id=39),
        ['encoder.layers.1', 'encoder.layers.0.mlp'],
    ),
    ('GPT2', dict(vocab_size=40, n_embd=16, n_layer=2, n_head=2), ['h.1', 'h.0.ln_2']),
    ('Llama', SIZES, ['layers.1', 'layers.0.mlp', 'layers.0.self_attn.q_proj']),
    ('Mistral', dict(SIZES, num_key_value_heads=2, sliding_window=3), ['layers.1']),
]
"""Family, sizes, places."""


def text_model(family: str, sizes: dict) -> nn.Module:
    import transformers

    config_name = f'{family.removesuffix("Encoder")}Config'
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(**sizes)
    return getattr(transformers, f'{family}Model')(config).eval()


@pytest.mark.parametrize('family, sizes, places', TEXTS, ids=[row[0] for row in TEXTS])
def test_padding_of_text_models_stays_out(family, sizes, places):
    host = text_model(family, sizes)
    ids = torch.randint(5, 38, (2, N), generator=torch.Generator().manual_seed(1))
    for after in places:
        model = wrap_in_float64(copy.deepcopy(host), after)
        for mask in (KEPT.long(), KEPT.double()):
            both = model(input_ids=ids, attention_mask=mask)[0][1, :SHORT]
            alone = model(input_ids=ids[1:, :SHORT], attention_mask=mask[1:, :SHORT])[
                0
            ][0]
            torch.testing.assert_close(both, alone, msg=lambda m: f'{after}: {m}')  # noqa: B023


@pytest.mark.parametrize('after', ['encoder.layer.1', 'encoder.layer.0.output'])
def test_layers_that_read_an_attention_mask_otherwise_are_refused(after):
    host = text_model('Longformer', dict(SIZES, attention_window=4))
    ids = torch.randint(5, 38, (2, 8), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, SHORT:] = 0
    with pytest.raises(UserError, match="'is_index_masked'"):
        wrap_in_float64(copy.deepcopy(host), after)(ids, mask)
    told = dict(attention_mask='keep', is_index_masked='ignore')
    model = wrap_in_float64(host, after, mask=told)
    alone = model(ids[1:, :SHORT], mask[1:, :SHORT])[0]
    torch.testing.assert_close(model(ids, mask)[0][1:, :SHORT], alone)


def test_padding_on_the_left_stays_out():
    model = wrap_in_float64(text_model('Llama', SIZES), 'layers.1')
    ids, mask = torch.randint(5, 38, (2, N)), KEPT.flip(1).long()
    places = torch.arange(SHORT)[None]
    both = model(input_ids=ids, attention_mask=mask)[0][1, -SHORT:]
    alone = model(input_ids=ids[1:, -SHORT:], position_ids=places)[0][0]
    torch.testing.assert_close(both, alone)


BART = dict(
    vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=24
)
BART |= dict(decoder_ffn_dim=24, encoder_attention_heads=2, decoder_attention_heads=2)


@pytest.mark.parametrize(
    'after', ['encoder.layers.0', 'decoder.layers.0', 'decoder.layers.0.fc1']
)
def test_encoder_and_decoder_have_masks_of_their_own(after):
    from transformers import BartConfig, BartModel

    torch.manual_seed(0)
    told = None
    if after.startswith('encoder'):
        told = dict(decoder_attention_mask='ignore')
    model = wrap_in_float64(
        BartModel(BartConfig(**BART, max_position_embeddings=64)).eval(),
        after,
        mask=told,
    )
    ids = torch.randint(5, 38, (2, N), generator=torch.Generator().manual_seed(1))
    alone = dict(input_ids=ids[1:, :SHORT], decoder_input_ids=ids[1:])
    both = dict(input_ids=ids, decoder_input_ids=ids, attention_mask=KEPT.long())
    torch.testing.assert_close(model(**both)[0][1:], model(**alone)[0])
    alone = dict(input_ids=ids[1:], decoder_input_ids=ids[1:, :SHORT])
    both = dict(
        input_ids=ids, decoder_input_ids=ids, decoder_attention_mask=KEPT.long()
    )
    torch.testing.assert_close(model(**both)[0][1:, :SHORT], model(**alone)[0])


@pytest.mark.parametrize('after', ['encoder_attn', 'encoder_attn.q_proj'])
def test_the_mask_of_cross_attention_is_not_taken_for_ones_own(after):
    from transformers import BartConfig, BartModel

    model = BartModel(BartConfig(**BART, max_position_embeddings=64))
    lm4ve.wrap(model, f'decoder.layers.0.{after}', BLOCK)
    ids = torch.randint(5, 38, (2, N))
    with pytest.raises(UserError, match='hidden_states and key_value_states'):
        model(input_ids=ids, decoder_input_ids=ids, attention_mask=KEPT.long())


@pytest.mark.parametrize('family', ['Wav2Vec2', 'Hubert', 'WavLM'])
@pytest.mark.parametrize('after', ['encoder.layers.1', 'encoder.layers.0.feed_forward'])
def test_padding_of_sounds_stays_out(family, after):
    import transformers

    sizes = {k: v for k, v in SIZES.items() if k != 'max_position_embeddings'}
    convolutions = dict(conv_dim=(8, 8), conv_kernel=(4, 2), conv_stride=(4, 2))
    positions = dict(num_conv_pos_embeddings=1, num_conv_pos_embedding_groups=1)
    norms = dict(feat_extract_norm='layer', do_stable_layer_norm=True)
    config = getattr(transformers, f'{family}Config')(
        **sizes, **convolutions, **positions, **norms
    )
    torch.manual_seed(0)
    model = wrap_in_float64(
        getattr(transformers, f'{family}Model')(config).eval(), after
    )
    sounds, mask = (
        torch.randn(2, 64, dtype=torch.float64),
        torch.ones(2, 64, dtype=torch.long),
    )
    mask[1, 40:] = 0
    both = model(sounds, attention_mask=mask)[0][1:, :5]
    torch.testing.assert_close(both, model(sounds[1:, :40])[0])


@pytest.mark.parametrize(
    'after', ['encoder.layer.1', 'encoder.layer.0.output', 'layernorm']
)
def test_padding_of_pictures_and_texts_stays_out(after):
    from transformers import ViltConfig, ViltModel

    torch.manual_seed(0)
    config = ViltConfig(**SIZES, image_size=32, patch_size=8, max_image_length=-1)
    model = ViltModel(config).eval().double()
    ids = torch.randint(5, 38, (2, N), generator=torch.Generator().manual_seed(1))
    pixels = torch.randn(2, 3, 16, 32, dtype=torch.float64)
    seen = torch.ones(2, 16, 32, dtype=torch.long)
    seen[1, :, 16:] = 0
    if after == 'layernorm':  # which nobody tells of the mask of both
        with pytest.raises(UserError, match="'pixel_mask'"):
            wrap_in_float64(model, after)(
                ids, KEPT.long(), pixel_values=pixels, pixel_mask=seen
            )
        return
    wrap_in_float64(model, after)
    torch.manual_seed(0)
    both = model(ids, KEPT.long(), pixel_values=pixels, pixel_mask=seen)[0][1, :SHORT]
    alone = model(ids[1:, :SHORT], pixel_values=pixels[1:, :, :, :16])[0][0, :SHORT]
    torch.testing.assert_close(both, alone)
