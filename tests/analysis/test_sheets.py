"""Sheets show each token in its place and its numbers; the page embeds them.

Analyses are made by hand, so that it is known which token must light up where.
"""

import base64
import re
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib import colormaps
from PIL import Image

from lm4ve.analysis import Analysis, Attention, Layout, Point, samples
from lm4ve.analysis.pages import PageEntry, write_page
from lm4ve.analysis.samples import samples_of
from lm4ve.analysis.sheets import draw_sheet
from lm4ve.draw.figures import to_image
from lm4ve.draw.pictures import COVER
from tests.helpers.html import Links

MEAN = torch.tensor([120.0, 110.0, 100.0])
STD = torch.tensor([60.0, 50.0, 40.0])
SCALE = SimpleNamespace(mean=MEAN.view(-1, 1, 1), std=STD.view(-1, 1, 1))
MODEL = SimpleNamespace(data_preprocessor=SCALE)


def spike(at: int, rows: int = 1) -> torch.Tensor:
    """Eight tokens of noise, one of which is far from the others."""
    tokens = 0.01 * torch.randn(rows, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens[:, at] += 100.0
    return tokens


def normalized(pixels: np.ndarray) -> torch.Tensor:
    """Return pixels as a preprocessor does: channels first, less the mean, by the deviation."""
    return ((torch.from_numpy(pixels).float() - MEAN) / STD).movedim(-1, -3)


def analysis_of(kind, inputs, layout, tokens, attention=None, samples=1):
    """Return an analysis of one point."""
    return Analysis(
        kind=kind,
        inputs=inputs,
        points={'encoder': Point('enc.last', tokens, layout)},
        attention=attention or {},
        outputs=[{}] * samples,
        views=len(tokens) // samples,
    )


def drawn(analysis, model=MODEL, **options):
    """Return the samples of an analysis, ready to be drawn."""
    names = [f's{i}' for i in range(len(analysis.outputs))]
    return samples_of(analysis, model, names, None, **options)


def panels(figure) -> list:
    """Pixels of each panel, in the order of drawing."""
    image = to_image(figure)
    height, width = image.shape[:2]
    found = []
    for axes in figure.axes:
        x0, y0, x1, y1 = axes.get_position().extents
        rows = slice(round((1 - y1) * height), round((1 - y0) * height))
        found.append(image[rows, round(x0 * width) : round(x1 * width)])
    return found


def cells(panel: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The colour in the middle of each cell, 0 to 1."""
    height, width = panel.shape[:2]
    y = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    x = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    return panel[y][:, x] / 255.0


HIGH = np.array(colormaps['viridis'](1.0)[:3])
LOW = np.array(colormaps['viridis'](0.0)[:3])
#: The color of points without a group.
GREY = np.full(3, 0.58)


def has_color(pixels: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Return which pixels ``[H, W, 3]`` of 0 to 255 nearly have a color of 0 to 1: ``[H, W]``."""
    return np.abs(pixels / 255.0 - color).max(axis=-1) < 0.06


# ------------------------------------------------------------------------- images
@pytest.fixture(scope='module')
def image():
    """2 x 4 tokens on 8 x 16 pixels: token 7 (lower right) stands out."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:4, :4] = 250, 20, 90
    weights = torch.full((1, 3, 8), 0.05)
    weights[0, 1, 3] = 0.6  # head 2, upper right
    layout = Layout('image', 1, (2, 4))
    attention = dict(
        block=Attention('neck.block.layers.0', weights, 'class token', layout)
    )
    return pixels, analysis_of(
        'image', normalized(pixels)[None], layout, spike(7), attention
    )


def test_an_image_and_its_brightest_token_keep_their_places(image):
    pixels, analysis = image
    (sample,) = drawn(analysis, measures=['magnitude'])
    np.testing.assert_array_equal(sample.picture.pixels[0], pixels)
    shown = cells(panels(draw_sheet(sample))[0], 2, 4)
    np.testing.assert_allclose(shown[0, 0], np.array([250, 20, 90]) / 255, atol=0.02)
    np.testing.assert_allclose(shown[1, 3], 0, atol=0.02)
    shown = cells(panels(draw_sheet(sample))[1], 2, 4)
    expected = np.full((2, 4, 3), LOW)
    expected[1, 3] = HIGH
    # The frame shines through: black but for the corner.
    np.testing.assert_allclose(shown[:, 1:], COVER * expected[:, 1:], atol=0.03)


def test_nearly_uniform_attention_has_a_scale_from_zero(image):
    _, analysis = image
    (sample,) = drawn(analysis)
    scales = {}
    for head in sample.sections[-1].maps[1:]:
        norm = head.norm()
        scales[head.title] = (norm.vmin, norm.vmax)
    assert scales == {
        'head 1, nearly uniform': pytest.approx((0, 0.05)),
        'head 2': pytest.approx((0.05, 0.6)),
        'head 3, nearly uniform': pytest.approx((0, 0.05)),
    }


# -------------------------------------------------------------------------- clips
@pytest.mark.parametrize('views', [1, 3])
def test_a_token_lights_up_at_its_time_in_a_strip(views):
    pixels = np.zeros((1, views, 4, 16, 16, 3), np.uint8)
    pixels[:, :, 3] = 200
    inputs = normalized(pixels).transpose(2, 3)  # [B, V, 3, T, H, W]
    tokens = spike(0, views)
    tokens[0] = spike(6)[0]  # time 1, row 1, column 0
    analysis = analysis_of('video', inputs, Layout('video', 0, (2, 2, 2)), tokens)
    (sample,) = drawn(analysis, measures=['magnitude'])
    frames = panels(draw_sheet(sample))
    assert len(frames) == 8  # four of the input, four of the point
    assert cells(frames[3], 2, 2).mean() > 0.7 > 0.1 > cells(frames[2], 2, 2).mean()
    for time, frame in enumerate(frames[4:]):
        shown = cells(frame, 2, 2)[..., 1] > 0.5  # green: only the high end is
        expected = np.zeros((2, 2), bool)
        expected[1, 0] = time >= 2
        np.testing.assert_array_equal(shown, expected)


def test_the_first_clip_of_a_sample_is_shown():
    pixels = np.zeros((2, 6, 16, 16, 3), np.uint8)
    pixels[1, 1] = 200
    tokens = spike(0, 6)  # three clips a sample, of two frames each
    tokens[3] = spike(6)[0]  # sample 1, clip 0, frame 1, lower left
    layout = Layout('video', 0, (2, 2, 2))
    analysis = analysis_of('video', normalized(pixels), layout, tokens, samples=2)
    single = torch.zeros(12, 4, 8)  # a point before frames are joined
    single[7, 3] = 100.0  # sample 1, frame 1, lower right
    analysis.points['before'] = Point('enc', single, Layout('video', 0, (2, 2)))
    _, second = drawn(analysis, measures=['magnitude'])
    dark, bright, *of_points = panels(draw_sheet(second))
    assert len(of_points) == 4
    assert dark[9:-9, 9:-9].max() == 0
    assert bright[9:-9, 9:-9].min() > 180
    # In the second frame of each point; green is high at the high end alone.
    brightest = [cells(panel, 2, 2)[..., 1].argmax() for panel in of_points[1::2]]
    assert brightest == [2, 3]


# ------------------------------------------------------------------------- clouds
def test_a_group_lights_up_where_its_points_are():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (300, 3))
    points[:100, 2] = 1.0  # on top
    points[100:, 2] = -1.0
    # Groups of 100 indices: one of all upper points; two of lower ones, the points of
    # even and of odd numbers from 100 to 199, each twice. The rest are in none.
    upper = np.arange(100)
    lower_even = np.arange(100, 200) // 2 * 2
    groups = torch.from_numpy(np.stack([upper, lower_even, lower_even + 1]))[None]
    model = SimpleNamespace(backbone=SimpleNamespace(group=lambda x: (None, groups)))
    # A token of 6 channels for each group; the upper group's is the largest.
    tokens = torch.zeros(1, 3, 6)
    tokens[:, 0] = 9.0
    inputs = torch.from_numpy(points)[None]
    layout = Layout('pointcloud', 1, (3,))
    analysis = analysis_of('pointcloud', inputs, layout, tokens)
    (sample,) = drawn(analysis, model, measures=['magnitude'])
    panel = panels(draw_sheet(sample))[1]
    rows = np.arange(len(panel))[:, None].repeat(panel.shape[1], 1)
    high = has_color(panel, HIGH)
    low = has_color(panel, LOW)
    assert high.sum() > 200
    assert low.sum() > 200
    # Clearly above and below the middle of the panel.
    assert rows[high].mean() < 0.4 * len(panel)
    assert rows[low].mean() > 0.6 * len(panel)
    # Points of no group are grey, and smaller.
    grey = has_color(panel, GREY)
    assert 20 < grey.sum() < low.sum()


# ------------------------------------------------------------------------- scenes
def scene_analysis():
    agents = torch.zeros(2, 3, 4, 2)
    agents[:, 1] = torch.tensor([30.0, 25.0])  # ahead, to the left
    lanes = torch.stack([torch.linspace(-40, -10, 5), torch.full((5,), -30.0)], -1)
    agent_padding = torch.tensor([[False, False, True]] * 2)
    lane_padding = torch.tensor([[False, True]] * 2)
    inputs = dict(
        agents=agents,
        agents_valid=torch.ones(2, 3, 4, dtype=torch.bool),
        agent_padding=agent_padding,
        lanes=lanes.expand(2, 2, 5, 2).clone(),
        lane_padding=lane_padding,
    )
    tokens = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    tokens[:, 1] = 50.0
    tokens[:, [2, 4]] = 1e6  # padding
    padding_mask = torch.cat((agent_padding, lane_padding), dim=1)
    layout = Layout('motion', 0, (5,), padding_mask)
    return analysis_of('motion', inputs, layout, tokens, samples=2)


def test_an_agent_lights_up_where_it_is():
    _, second = drawn(scene_analysis(), measures=['magnitude'])
    panel = panels(draw_sheet(second))[1]
    # 30 m ahead is to the right, 25 m to the left is up; 50 m reach to the edge.
    middle = np.argwhere(has_color(panel, HIGH)).mean(axis=0) / len(panel)
    np.testing.assert_allclose(middle, [(50 - 25) / 100, (50 + 30) / 100], atol=0.02)
    # The lane is behind to the right.
    lane = np.argwhere(has_color(panel, LOW)) / len(panel)
    lane = lane[lane[:, 0] > 0.7]
    assert len(lane) > 20
    assert (lane[:, 1] < 0.45).all()


def test_padding_does_not_count():
    sample = drawn(scene_analysis(), measures=['magnitude'])[0]
    tokens = scene_analysis().points['encoder'].tokens[0, [0, 1, 3]].double().numpy()
    expected = np.linalg.norm(tokens - tokens.mean(axis=0), axis=1)
    values = sample.sections[0].maps[0].values
    np.testing.assert_allclose(values[[0, 1, 3]], expected)
    assert np.isnan(values[[2, 4]]).all()
    (number,) = sample.numbers
    np.testing.assert_allclose(
        [number.mean, number.largest], [expected.mean(), expected.max()]
    )


# ------------------------------------------------------------------------ numbers
def test_numbers_are_those_of_the_tokens(image):
    (sample,) = drawn(image[1])
    tokens = image[1].points['encoder'].tokens[0].double().numpy()
    distance = np.linalg.norm(tokens - tokens.mean(axis=0), axis=1)
    magnitude, *_, entropy = sample.numbers
    assert (magnitude.mean, magnitude.largest) == pytest.approx(
        (distance.mean(), distance.max())
    )
    weights = image[1].attention['block'].weights[0].double().numpy()
    expected = np.mean([scipy.stats.entropy(w) for w in weights])
    assert entropy.quantity == 'attention entropy (at most 2.08 nats)'
    assert (entropy.mean, entropy.largest) == pytest.approx((expected, np.log(8)))


# --------------------------------------------------------------------------- page
def test_a_sheet_says_what_to_look_for(image):
    (sample,) = drawn(image[1])
    said = draw_sheet(sample).get_supxlabel()
    assert said.startswith('To look for: do tokens that matter')
    assert "the paper's hypothesis" in said


def test_a_page_fetches_nothing_and_escapes_names(image, tmp_path):
    sheet = tmp_path / 'sheet.png'
    Image.new('RGB', (4, 4), 'red').save(sheet)
    name = '<script>alert("1")</script> & co'
    number = samples.Number('magnitude', '<i>', 'neck', 12345.6, 0.00012)
    sample = samples.Sample(name, None, [], {'prediction': '<b>cat</b>'}, [number])
    entries = [PageEntry(sample, sheet, sheet)] * 2
    write_page(tmp_path / 'index.html', 'Title', dict(command='tool <x>'), entries)
    text = (tmp_path / 'index.html').read_text()
    page = Links(text)
    assert not {'script', 'link', 'i', 'iframe'} & page.tags
    assert '://' not in text and 'url(' not in text
    kinds = 'data:image/png;base64,', 'data:video/mp4;base64,', '#s'
    assert all(u.startswith(kinds) for u in page.links)
    packed = [u.partition(',')[2] for u in page.links if u.startswith('data:')]
    assert [base64.b64decode(p) for p in packed] == [sheet.read_bytes()] * 4
    for words in (name, '<b>cat</b>', 'tool <x>', '1.23e+04', '0.00012', '<i>'):
        assert words in page.words
    # Wide elements scroll by themselves on a phone.
    assert re.search(r'\.scroll {[^}]*overflow-x: auto', text)
    assert not re.search(r'(?<!<div class="scroll">)<(img|table)\b', text)
