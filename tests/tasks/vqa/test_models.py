"""METER, its parts and learning rates on tiny random models, against plain computations."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from lm4ve.errors import CheckpointError, UserError
from lm4ve.tasks.vqa.models.heads import VQAHead
from lm4ve.tasks.vqa.optim import group_of
from lm4ve.text.structures import VisionLanguageDataSample
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.vqa import tiny
from tests.helpers.vqa.tiny import HEADS, IMAGE, SPECIAL, TEXT, WORDS, batch, build, run

QUESTIONS = [['what color is the cat'], ['is the dog black']]
CAPTIONS = [
    ['a cat sits on the mat', 'a dog runs', 'two cat'],
    ['a dog runs', 'a cat', 'red mat'],
]
RETRIEVAL = HEADS['retrieval']


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    return tiny.write_tokenizer(tmp_path_factory.mktemp('tokenizer'))


@pytest.mark.parametrize('tokens', ['visual', 'joint'])
@pytest.mark.parametrize('image_pool', ['first', 'mean'])
def test_queries_give_what_all_tokens_give(tokenizer, tokens, image_pool):
    model = build(tokenizer, neck=True, tokens=tokens, image_pool=image_pool).eval()
    data = batch([['what color is the cat'], ['is the dog black']])
    out = run(model, data)
    with model.neck.observe():
        assert_equal_but_for_rounding(out, run(model, data), model)


@pytest.mark.parametrize('tokens', ['visual', 'joint'])
def test_padding_changes_nothing(tokenizer, tokens):
    model = build(tokenizer, neck=True, tokens=tokens).eval()
    data = batch([['is the cat red'], ['what color is the dog the cat sits on']])
    together = run(model, data)
    for i in range(2):
        alone = {k: v[i : i + 1] for k, v in data.items()}
        assert_equal_but_for_rounding(run(model, alone)[0], together[i], model)


def test_loss_is_binary_cross_entropy_on_soft_scores(tokenizer):
    model = build(tokenizer).eval()
    answers = [
        ['yes'] + ['no'] * 2 + ['red'] * 3 + ['maybe'] * 4,
        ['blue'] * 4 + ['2'] * 6,
    ]
    data = batch(QUESTIONS, answers)
    loss = run(model, data, 'loss')['loss_vqa']
    target = torch.tensor([[0.3, 0.6, 0.9, 0, 0], [0, 0, 0, 1, 1]])
    p = model.head(run(model, data)[:, 0]).sigmoid()
    cross = -(target * p.log() + (1 - target) * (1 - p).log())
    torch.testing.assert_close(loss, cross.sum() / 2, rtol=1e-4, atol=1e-4)


def test_true_caption_comes_first_in_losses(tokenizer):
    head = dict(RETRIEVAL, itm=dict(weight=0.5))
    model = build(tokenizer, head=head).eval()
    data = batch(CAPTIONS)
    losses = run(model, data, 'loss')
    features = run(model, data)
    scores = features @ model.head.rank_output.weight[0] + model.head.rank_output.bias
    expected = -scores.log_softmax(-1)[:, 0].mean()
    torch.testing.assert_close(losses['loss_rank'], expected)
    p = model.head.itm.fc(features).softmax(-1)[..., 1]
    expected = -torch.cat((p[:, :1].log(), (1 - p[:, 1:]).log()), dim=1).mean() / 2
    torch.testing.assert_close(losses['loss_itm'], expected)
    assert not any(p.requires_grad for p in model.head.itm.parameters())


@pytest.mark.parametrize('head', [{}, dict(head=RETRIEVAL)])
@pytest.mark.parametrize(
    'tokens', [{}, *(dict(neck=True, tokens=t) for t in ('visual', 'joint'))]
)
def test_every_trained_parameter_gets_a_gradient(tokenizer, head, tokens):
    """Distributed training stops at parameters that a loss does not reach."""
    model = build(tokenizer, **head, **tokens).train()
    data = batch(CAPTIONS) if head else batch(QUESTIONS, [['yes'], ['no']])
    sum(run(model, data, 'loss').values()).backward()
    missing = [
        n for n, p in model.named_parameters() if p.requires_grad and p.grad is None
    ]
    assert missing == []


def test_scores_are_fp32_under_mixed_precision(tokenizer):
    model = build(tokenizer, neck=True, head=RETRIEVAL).eval()
    with torch.autocast('cpu', torch.bfloat16):
        scores = [s.pred_scores for s in run(model, batch(CAPTIONS), 'predict')]
        loss = run(model, batch(CAPTIONS), 'loss')['loss_rank']
    loss.backward()
    assert (
        loss.dtype == torch.float32
        and model.neck.mapper_in.weight.grad.isfinite().all()
    )
    assert all(s.dtype == torch.float32 for s in scores)


TOKENIZERS = [
    (
        ['<pad>', '<s>', '</s>', '<unk>'],
        WORDS,
        None,
        12,
        "pad_token_id=0, but the encoder's is 1",
    ),
    (
        SPECIAL,
        WORDS,
        'bert',
        12,
        "the family is 'bert', but the encoder's is 'roberta'",
    ),
    (SPECIAL, WORDS, None, 39, 'max_length=39 must be at most 38'),
    (SPECIAL, [*WORDS, *'bcdefghj'], None, 12, 'tokens=28 must be at most 20'),
]


@pytest.mark.parametrize('special, words, kind, length, message', TOKENIZERS)
def test_tokenizer_of_another_encoder_is_refused(
    special, words, kind, length, message, tmp_path
):
    folder = tiny.write_tokenizer(tmp_path, words, special, kind)
    config = dict(
        type='lm4ve.VisionLanguagePreprocessor', tokenizer=folder, max_length=length
    )
    with pytest.raises(UserError, match=message):
        build(data_preprocessor=config)


def test_checkpoint_of_another_vocabulary_is_refused(tokenizer):
    state = build(tokenizer).state_dict()
    head = HEADS['vqa'] | dict(vocabulary=tiny.ANSWERS[::-1])
    with pytest.raises(CheckpointError, match='another vocabulary'):
        build(tokenizer, head=head).load_state_dict(state, strict=False)


def test_pixels_and_texts_become_encoder_inputs(tokenizer):
    prepare = build(tokenizer).data_preprocessor
    data = batch([['the cat'], ['the red cat']])
    out = prepare(data)['inputs']
    rgb = data['inputs'][0].flip(0).float() / 255
    mean, std = (
        [0.48145466, 0.4578275, 0.40821073],
        [0.26862954, 0.26130258, 0.27577711],
    )
    expected = (rgb - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    torch.testing.assert_close(out['image'][0], expected, rtol=1e-4, atol=1e-4)
    cat, red, the = (4 + WORDS.index(w) for w in ('cat', 'red', 'the'))
    assert out['input_ids'].tolist() == [[[0, the, cat, 2, 1]], [[0, the, red, cat, 2]]]
    assert out['text_padding'].tolist() == [[[False] * 4 + [True]], [[False] * 5]]
    ids, padding = prepare.tokenize(['cat ' * 30, 'cat'])  # one is too long
    assert ids.shape == (2, 12) and ids[0, -1] == 2 and not padding[0].any()


SIGLIP = dict(type='lm4ve.TransformersImageEncoder')
SIGLIP['config'] = IMAGE | dict(model_type='siglip_vision_model')
TIMM = dict(type='lm4ve.TimmImageEncoder', img_size=32)
VIT = dict(TIMM, model_name='vit_tiny_patch16_224', embed_dim=24, depth=1, num_heads=2)
SWIN = dict(TIMM, model_name='swin_tiny_patch4_window7_224', embed_dim=6, window_size=4)
SIZES = dict(embed_dims=24, num_layers=1, num_heads=2, feedforward_channels=32)
OURS = dict(type='mmpretrain.VisionTransformer', arch=SIZES, img_size=32, patch_size=8)
OURS['out_type'] = 'raw'


ENCODERS = [
    (SIGLIP, 'mean', 16),
    (dict(SIGLIP, head_token=True), 'first', 17),
    (VIT, 'mean', 5),
    (dict(SWIN, depths=(1, 1), num_heads=(1, 2)), 'mean', 16),
    (OURS, 'first', 17),
]


@pytest.mark.parametrize('encoder, pool, count', ENCODERS)
def test_any_encoder_of_tokens_trains(encoder, pool, count, tokenizer):
    model = build(tokenizer, neck=True, image_encoder=encoder, image_pool=pool)
    assert model.encode_images(torch.randn(1, 3, 32, 32)).shape == (1, count, 16)
    run(model, batch(QUESTIONS, [['yes'], ['no']]), 'loss')['loss_vqa'].backward()
    if encoder is not OURS:  # whose class token's norm is not its own
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize('part, config', [('image', IMAGE), ('text', TEXT)])
def test_frozen_encoders_do_not_train(part, config, tokenizer):
    encoder = dict(
        type=f'lm4ve.Transformers{part.title()}Encoder', frozen=True, config=config
    )
    model = build(tokenizer, **{f'{part}_encoder': encoder}).train()
    run(model, batch(QUESTIONS, [['yes'], ['no']]), 'loss')['loss_vqa'].backward()
    frozen = getattr(model, f'{part}_encoder')
    assert not any(m.training for m in frozen.modules())
    assert all(p.grad is None for p in frozen.parameters())


PARTS = [
    dict(tokens='all'),
    dict(head=dict(RETRIEVAL, in_channels=9)),
    dict(image_encoder=SIGLIP),  # has no first token to pool
    dict(text_encoder=dict(type='lm4ve.TransformersTextEncoder')),
    dict(head=dict(RETRIEVAL, itm=dict(weights=1))),
]


@pytest.mark.parametrize('changes', PARTS)
def test_parts_that_do_not_fit_are_refused(changes):
    with pytest.raises(UserError, match=r'model\.'):
        build(**changes)


def test_loss_of_several_questions_is_the_mean():
    head = VQAHead(['yes', 'no', 'red'], in_channels=8)
    features = torch.randn(2, 3, 8)
    answers = [[['yes'], ['red'], ['no']], [['no'], ['blue'], ['yes'] * 3]]
    samples = [VisionLanguageDataSample(metainfo=dict(gt_answers=a)) for a in answers]
    single = [
        VisionLanguageDataSample(metainfo=dict(gt_answers=a))
        for s in answers
        for a in s
    ]
    loss = head.loss(features, samples)['loss_vqa']
    expected = head.loss(features.flatten(0, 1)[:, None], single)['loss_vqa']
    torch.testing.assert_close(loss, expected)
    assert not torch.isclose(loss, head.loss(features.flip(1), samples)['loss_vqa'])
    with pytest.raises(UserError, match='gt_answers'):
        head.loss(features, [single[0], samples[1]])


def rates(model, **paramwise_cfg):
    """Parameter name -> (rate, decay), after a build of the optimizer."""
    cfg = dict(
        constructor='lm4ve.METEROptimWrapperConstructor', paramwise_cfg=paramwise_cfg
    )
    cfg['optimizer'] = dict(type='AdamW', lr=1.0, weight_decay=0.1)
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    found = {id(p): (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
    return {n: found[id(p)] for n, p in model.named_parameters() if id(p) in found}


def test_learning_rates_are_those_of_meter():
    model = build(neck=True)
    got = rates(model)
    expected = {
        'image_encoder.model.embeddings.class_embedding': (1, 0.1),
        'image_encoder.model.encoder.layers.0.layer_norm1.weight': (
            1,
            0.1,
        ),  # CLIP's decay
        'image_encoder.model.encoder.layers.0.layer_norm1.bias': (1, 0),
        'text_encoder.model.embeddings.LayerNorm.weight': (1, 0),
        'text_encoder.model.embeddings.word_embeddings.weight': (1, 0.1),
        'token_types.weight': (1, 0.1),
        'image_transform.weight': (5, 0.1),
        'text_pooler.dense.bias': (5, 0),
        'fusion.image_layers.1.output.LayerNorm.weight': (5, 0),
        'fusion.text_layers.0.crossattention.self.query.weight': (5, 0.1),
        'neck.mapper_in.weight': (10, 0.1),
        'head.layers.1.weight': (50, 0.1),  # the answer head's norm decays too
        'head.layers.3.bias': (50, 0),
    }
    assert {name: got[name] for name in expected} == expected
    assert set(got) == {n for n, _ in model.named_parameters()}
    model.text_encoder.requires_grad_(False)
    assert not any(name.startswith('text_encoder') for name in rates(model))
    got = rates(build(head=dict(RETRIEVAL, itm=dict(frozen=False))), head=5)
    assert got['head.rank_output.weight'] == (1, 0.1) and got['head.itm.fc.weight'] == (
        5,
        0.1,
    )


@pytest.mark.parametrize('wrapper', ['module', '_orig_mod', '_fsdp_wrapped_module'])
def test_wrappers_do_not_change_learning_rates(wrapper):
    for name in (
        'fusion.{}.text_layers.0.output.dense.weight',
        'image_pooler.dense.weight',
    ):
        assert group_of(f'{wrapper}.{name.format(wrapper)}') == ('cross_modal', True)


def test_wrong_learning_rates_are_refused():
    with pytest.raises(UserError, match='paramwise_cfg'):
        rates(build(), crossmodal=5)
    with pytest.raises(UserError, match='groups of the fusion=0'):
        rates(torch.nn.Linear(2, 2))


def test_ranking_begins_as_the_logit_of_a_match(tokenizer):
    head = build(tokenizer, head=dict(RETRIEVAL, itm=dict(weight=1.0))).head
    features = torch.randn(3, head.in_channels)
    torch.testing.assert_close(head(features), head.itm(features)[:, 1])
