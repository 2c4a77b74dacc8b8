"""METER and its parts on tiny random models, against plain computations."""

import pytest
import torch

from lm4ve.errors import CheckpointError, UserError
from tests.tasks.vqa.tiny import ANSWERS, IMAGE, TEXT, WORDS, batch, build, write_tokenizer

QUESTIONS = [['what color is the cat'], ['is the dog black']]
CAPTIONS = [['a cat sits on the mat', 'a dog runs', 'two cat'], ['a dog runs', 'a cat', 'red mat']]
RETRIEVAL = dict(type='lm4ve.RetrievalHead', in_channels=32)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp('tokenizer'))


def run(model, data, mode='tensor'):
    data = model.data_preprocessor(data)
    return model(data['inputs'], data['data_samples'], mode)


@pytest.mark.parametrize('tokens', ['visual', 'joint'])
@pytest.mark.parametrize('image_pool', ['first', 'mean'])
def test_what_the_poolers_do_not_read_is_not_needed(tokenizer, tokens, image_pool):
    """Queries give what the computation of every token gives."""
    model = build(tokenizer, neck=True, tokens=tokens, image_pool=image_pool).eval()
    data = batch([['what color is the cat'], ['is the dog black']])
    out = run(model, data)
    with model.neck.observe():
        torch.testing.assert_close(out, run(model, data), rtol=1e-5, atol=1e-5)


def test_the_neck_computes_one_visual_token(tokenizer):
    model = build(tokenizer, neck=True).eval()
    seen = []
    model.neck.mapper_out.register_forward_pre_hook(lambda m, x: seen.append(x[0].shape[1]))
    run(model, batch(QUESTIONS))
    assert seen == [1]


@pytest.mark.parametrize('tokens', ['visual', 'joint'])
def test_padding_changes_nothing(tokenizer, tokens):
    model = build(tokenizer, neck=True, tokens=tokens).eval()
    data = batch([['is the cat red'], ['what color is the dog the cat sits on']])
    together = run(model, data)
    for i in range(2):
        alone = {k: v[i : i + 1] for k, v in data.items()}
        torch.testing.assert_close(run(model, alone)[0], together[i], rtol=1e-5, atol=1e-5)


def test_texts_of_an_image_do_not_see_each_other_and_share_its_encoding(tokenizer):
    model = build(tokenizer, head=RETRIEVAL).eval()
    calls = []
    model.image_encoder.register_forward_hook(lambda m, x, out: calls.append(len(out)))
    data = batch(CAPTIONS)
    together = run(model, data)
    assert calls == [2] and together.shape == (2, 3, 32)
    one = batch([CAPTIONS[0][1:2], CAPTIONS[1][2:3]])
    one['inputs'] = data['inputs']
    alone = run(model, one)
    torch.testing.assert_close(alone[0, 0], together[0, 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone[1, 0], together[1, 2], rtol=1e-5, atol=1e-5)


def test_answers_are_scored_by_their_annotators(tokenizer):
    """Binary cross-entropy on .3, .6, .9 and 1, times the number of answers."""
    model = build(tokenizer).eval()
    answers = [['yes'] + ['no'] * 2 + ['red'] * 3 + ['maybe'] * 4, ['blue'] * 4 + ['2'] * 6]
    data = batch(QUESTIONS, answers)
    loss = run(model, data, 'loss')['loss_vqa']
    target = torch.tensor([[0.3, 0.6, 0.9, 0, 0], [0, 0, 0, 1, 1]])
    p = model.head(run(model, data)[:, 0]).sigmoid()
    cross = -(target * p.log() + (1 - target) * (1 - p).log())
    torch.testing.assert_close(loss, cross.sum() / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('answers', 'targets', 'expected'),
    [
        (['red'], 'soft', {2: 1.0}),
        (['red', 'blue', 'blue'], 'hard', {3: 1.0}),
        (['red', 'blue'], 'hard', {2: 1.0}),
        (['maybe'], 'soft', {}),
    ],
)
def test_targets_of_few_answers(answers, targets, expected):
    from lm4ve.tasks.vqa.models.heads import soft_targets

    assert soft_targets(answers, {a: i for i, a in enumerate(ANSWERS)}, targets) == expected


def test_a_prediction_names_the_best_answer(tokenizer):
    model = build(tokenizer).eval()
    with torch.no_grad():
        model.head.layers[3].bias[2] = 9.0
    (first, _) = run(model, batch(QUESTIONS), 'predict')
    assert first.pred_answer == 'red' and first.pred_label.tolist() == [2]
    assert first.pred_scores.shape == (5,) and first.pred_scores[2] > 0.9


def test_ranks_are_trained_with_the_true_caption_first(tokenizer):
    head = dict(RETRIEVAL, itm=dict(weight=0.5), contrastive=dict(channels=8))
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


def test_the_contrastive_loss_compares_all_texts_but_those_of_the_same_image(tokenizer):
    head = dict(RETRIEVAL, contrastive=dict(channels=8, temperature=0.5))
    model = build(tokenizer, head=head).eval()
    data = model.data_preprocessor(batch([*CAPTIONS, ['blue', 'two dog', 'white']]))
    data['data_samples'][2].set_metainfo(dict(image_id=0))
    loss = model(**data, mode='loss')['loss_contrastive']
    i = model.embed_images(model.encode_images(data['inputs']['image']))
    t = [
        model.embed_texts(
            model.encode_texts(data['inputs']['input_ids'][k], data['inputs']['text_padding'][k])
        )
        for k in range(3)
    ]
    s = [[(i[a] @ t[b].T / 0.5).exp() for b in range(3)] for a in range(3)]
    to_text = to_image = 0.0
    for a in range(3):
        twin = {0: 2, 2: 0}.get(a)
        below = sum(s[a][b].sum() for b in range(3)) - (s[a][twin][0] if twin is not None else 0)
        to_text -= (s[a][a][0] / below).log() / 3
        below = sum(s[b][a][0] for b in range(3) if b != twin)
        to_image -= (s[a][a][0] / below).log() / 3
    torch.testing.assert_close(loss, (to_text + to_image) / 2)


@pytest.mark.parametrize('head', [None, dict(RETRIEVAL, contrastive=dict(channels=8))])
@pytest.mark.parametrize('tokens', [None, 'visual', 'joint'])
def test_every_parameter_that_trains_gets_a_gradient(tokenizer, head, tokens):
    """Distributed training stops at parameters that a loss does not reach."""
    changes = dict(head=head) if head else {}
    if tokens:
        changes.update(neck=True, tokens=tokens)
    model = build(tokenizer, **changes).train()
    data = batch(CAPTIONS) if head else batch(QUESTIONS, [['yes'], ['no']])
    sum(run(model, data, 'loss').values()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_recomputed_layers_give_the_same_gradients(tokenizer):
    fusion = dict(type='lm4ve.CoAttentionFusion', embed_dims=16, num_layers=2, num_heads=2)
    model = build(tokenizer, fusion=dict(fusion, dropout=0.0)).eval()
    again = build(tokenizer, fusion=dict(fusion, dropout=0.0, with_cp=True)).eval()
    again.load_state_dict(model.state_dict())
    for m in (model, again):
        run(m, batch(QUESTIONS, [['yes'], ['no']]), 'loss')['loss_vqa'].backward()
    for (name, p), q in zip(model.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_scores_stay_in_32_bits_under_mixed_precision(tokenizer):
    model = build(tokenizer, neck=True, head=RETRIEVAL).eval()
    with torch.autocast('cpu', torch.bfloat16):
        scores = [s.pred_scores for s in run(model, batch(CAPTIONS), 'predict')]
        loss = run(model, batch(CAPTIONS), 'loss')['loss_rank']
    loss.backward()
    assert loss.dtype == torch.float32 and model.neck.mapper_in.weight.grad.isfinite().all()
    assert all(s.dtype == torch.float32 for s in scores)


def test_pixels_and_texts_are_prepared_as_the_encoders_expect(tokenizer):
    model = build(tokenizer)
    data = batch([['the cat'], ['the red cat']])
    out = model.data_preprocessor(data)['inputs']
    rgb = data['inputs'][0].flip(0).float() / 255
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    expected = (rgb - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(out['image'][0], expected, rtol=1e-4, atol=1e-4)
    cat, red, the = (4 + WORDS.index(w) for w in ('cat', 'red', 'the'))
    assert out['input_ids'].tolist() == [[[0, the, cat, 2, 1]], [[0, the, red, cat, 2]]]
    assert out['text_padding'].tolist() == [[[False] * 4 + [True]], [[False] * 5]]


def test_long_texts_are_cut_and_counted(tokenizer):
    prepare = build(tokenizer).data_preprocessor
    ids, padding = prepare.tokenize(['cat ' * 30, 'cat'])
    assert ids.shape == (2, 12) and ids[0, -1] == 2 and not padding[0].any()
    assert prepare.num_truncated == 1


@pytest.mark.parametrize(
    ('special', 'model_type', 'length', 'message'),
    [
        (['<pad>', '<s>', '</s>', '<unk>'], None, 12, 'pad_token_id=0 must be one of 1'),
        (None, 'bert', 12, "'bert' must be one of roberta"),
        (None, None, 39, 'max_length=39 must be at most 38'),
        ('many', None, 12, 'tokens=28 must be at most 20'),
    ],
)
def test_a_tokenizer_of_another_encoder_is_refused(tmp_path, special, model_type, length, message):
    words = [*WORDS, *'bcdefghj'] if special == 'many' else WORDS
    given = special if isinstance(special, list) else ['<s>', '<pad>', '</s>', '<unk>']
    folder = write_tokenizer(tmp_path, words, given, model_type)
    config = dict(type='lm4ve.VisionLanguagePreprocessor', tokenizer=folder, max_length=length)
    with pytest.raises(UserError, match=message):
        build(data_preprocessor=config)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(tokens='all'), "model.tokens='all' must be one of visual, joint"),
        (dict(head=dict(RETRIEVAL, in_channels=9)), 'model.head.in_channels=9 must be one of 32'),
        (
            dict(
                image_encoder=dict(
                    type='lm4ve.TransformersImageEncoder',
                    config=dict(IMAGE, model_type='siglip_vision_model'),
                )
            ),
            "image_pool='first' must be one of mean",
        ),
        (dict(text_encoder=dict(type='lm4ve.TransformersTextEncoder')), 'give exactly one'),
        (dict(head=dict(RETRIEVAL, itm=dict(weights=1))), "Did you mean 'weight'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)


def test_a_checkpoint_of_another_vocabulary_is_refused(tokenizer):
    state = build(tokenizer).state_dict()
    head = dict(type='lm4ve.VQAHead', vocabulary=ANSWERS[::-1], in_channels=32)
    with pytest.raises(CheckpointError, match='another vocabulary'):
        build(tokenizer, head=head).load_state_dict(state, strict=False)


@pytest.mark.parametrize('head_token', [False, True])
def test_siglip_pools_by_the_mean_or_by_its_own_head(tokenizer, head_token):
    encoder = dict(
        type='lm4ve.TransformersImageEncoder',
        config=dict(IMAGE, model_type='siglip_vision_model'),
        head_token=head_token,
    )
    pool = 'first' if head_token else 'mean'
    model = build(tokenizer, neck=True, image_encoder=encoder, image_pool=pool)
    assert model.encode_images(torch.randn(1, 3, 32, 32)).shape[1] == 16 + head_token
    run(model, batch(QUESTIONS, [['yes'], ['no']]), 'loss')['loss_vqa'].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_frozen_encoders_stay_as_they_are(tokenizer):
    model = build(tokenizer)
    for encoder in (dict(config=IMAGE), dict(config=TEXT)):
        image = encoder['config'] is IMAGE
        kind = 'TransformersImageEncoder' if image else 'TransformersTextEncoder'
        name = 'image_encoder' if image else 'text_encoder'
        frozen = dict(type=f'lm4ve.{kind}', frozen=True, **encoder)
        model = build(tokenizer, **{name: frozen}).train()
        run(model, batch(QUESTIONS, [['yes'], ['no']]), 'loss')['loss_vqa'].backward()
        part = getattr(model, name)
        assert not part.training and not any(m.training for m in part.modules())
        assert all(p.grad is None for p in part.parameters())


def test_any_backbone_that_gives_tokens_is_an_encoder(tokenizer):
    pytest.importorskip('mmpretrain')
    vit = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=24, num_layers=1, num_heads=2, feedforward_channels=32),
        img_size=32,
        patch_size=8,
        out_type='raw',
    )
    model = build(tokenizer, image_encoder=vit)
    assert run(model, batch(QUESTIONS)).shape == (2, 1, 32)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'swin_tiny_patch4_window7_224'])
def test_models_of_timm_are_encoders(tokenizer, name):
    pytest.importorskip('timm')
    small = dict(embed_dim=24, depth=1) if 'vit' in name else dict(embed_dim=6, depths=(1, 1))
    heads = dict(num_heads=2) if 'vit' in name else dict(num_heads=(1, 2), window_size=4)
    encoder = dict(type='lm4ve.TimmImageEncoder', model_name=name, img_size=32, **small, **heads)
    model = build(tokenizer, image_encoder=encoder, image_pool='mean')
    run(model, batch(QUESTIONS, [['yes'], ['no']]), 'loss')['loss_vqa'].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
