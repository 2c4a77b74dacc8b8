"""Pictures of answers and of ranked images show what they are given."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.base.pictures import to_image
from lm4ve.tasks.vqa.visualization import (
    VisionLanguageVisualizationHook,
    VisionLanguageVisualizer,
    draw_images,
    draw_ranking,
)

RED = np.full((20, 30, 3), (255, 0, 0), np.uint8)


def texts(figure) -> str:
    words = [t.get_text() for t in figure.texts]
    for axes in figure.axes:
        words += [t.get_text() for t in (*axes.texts, *axes.get_yticklabels())]
    return ' '.join(' '.join(words).split())


def test_bars_are_as_long_as_the_scores_and_the_truth_is_green():
    figure = draw_ranking(RED, 'What is $x$?', [('cat', 0.5), ('dog', 0.25)], ['dog', 'dog'])
    bars = figure.axes[1].patches
    assert [b.get_width() for b in bars] == [0.5, 0.25]
    assert [b.get_facecolor()[:3] for b in bars] == [to_rgb('#4c78a8'), to_rgb('#1a8f3c')]
    assert texts(figure).startswith('What is $x$? truth: dog')
    assert 'cat dog' in texts(figure) and '50.0 % 25.0 %' in texts(figure)
    image = to_image(figure)
    assert (image == (255, 0, 0)).all(-1).sum() > 5000


@pytest.mark.parametrize('scores', [(-3.0, -8.0), (12.5, -1.0), (0.0, 0.0)])
def test_scores_of_any_sign_stay_within_the_picture(scores):
    figure = draw_ranking(RED, 'q ' * 80, [('a long caption ' * 6, scores[0]), ('b', scores[1])])
    low, high = figure.axes[1].get_xlim()
    assert low <= min(*scores, 0) and high > max(*scores, 0)
    assert to_image(figure).std() > 5


def test_ranked_images_stand_in_their_order():
    names = ['one.png', 'two.png', 'three.png']
    shades = [np.full((10, 10, 3), v, np.uint8) for v in (10, 120, 200)]
    figure = draw_images('a query', list(zip(shades, names, (3.0, 2.0, 1.0), strict=True)))
    places = [axes.get_position().x0 for axes in figure.axes]
    assert places == sorted(places)
    assert [int(a.images[0].get_array()[0, 0, 0]) for a in figure.axes] == [10, 120, 200]
    words = texts(figure)
    assert words.index('1. 3.00 one.png') < words.index('3. 1.00 three.png')


def test_the_hook_draws_every_nth_question_in_the_colors_of_the_file(tmp_path):
    sample = VisionLanguageDataSample(metainfo=dict(text=['q?'], img_path='x/my.png'))
    sample.set_answer(torch.tensor([0.2, 0.7]), ['no', 'yes'])
    plain = VisionLanguageDataSample(metainfo=dict(text=['a', 'b']))  # of retrieval
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    pixels[2] = 255  # red, loaded as BGR
    runner = SimpleNamespace(
        model=SimpleNamespace(head=SimpleNamespace(vocabulary=['no', 'yes'])),
        visualizer=VisionLanguageVisualizer(),
        val_dataloader=SimpleNamespace(batch_size=3),
        iter=7,
    )
    hook = VisionLanguageVisualizationHook(enable=True, interval=2, out_dir=str(tmp_path))
    for index, outputs in enumerate(([sample] * 3, [plain] * 3)):
        hook.after_val_iter(runner, index, dict(inputs=[pixels] * 3), outputs)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ['val_00000_my_7.png', 'val_00002_my_7.png']
    import cv2

    image = cv2.imread(str(tmp_path / files[0]))
    assert (image == (0, 0, 255)).all(-1).sum() > 5000
