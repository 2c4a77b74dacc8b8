"""A trained SQA3D is asked about rooms; pictures show its answers and activations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from lm4ve.analysis import analyse
from lm4ve.analysis.loading import collate, samples_by_index, samples_of_files
from lm4ve.analysis.samples import samples_of
from lm4ve.apis import inference
from lm4ve.runner.config import read_config
from lm4ve.tasks.rooms import RoomInferencer
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.logs import record_logs
from tests.helpers.rooms import tiny
from tests.helpers.rooms.scans import write_ply
from tests.helpers.rooms.scenes import write_sqa3d
from tests.helpers.tools import run_tool_here
from tests.helpers.vqa.tiny import write_model

SITUATION, QUESTION = 'I am facing the chair.', 'what is left of me?'
POINTS = [
    dict(type='lm4ve.LoadScene', annotations=False),
    dict(type='lm4ve.SampleScenePoints', num=tiny.POINTS, seed=0),
    dict(type='lm4ve.PackScene'),
]
OBJECTS = [dict(type='lm4ve.LoadObjects', pose=False), dict(type='lm4ve.PackScene')]
MODELS_OF = dict(
    points=dict(),
    block=dict(neck=True),
    joint=dict(neck=True, tokens='joint'),
    stored=dict(neck=True, stored=True),
)
#: The error of whoever notices.
REFUSED = (ValueError, LookupError, TypeError, RuntimeError, OSError)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Configs with checkpoints of large weights, and rooms in every kind of file."""
    folder = tmp_path_factory.mktemp('made')
    data = write_sqa3d(folder / 'data')
    for name, changes in MODELS_OF.items():
        dataset = dict(type='lm4ve.SQA3DDataset', split='test', data_root=str(data))
        dataset['pipeline'] = OBJECTS if name == 'stored' else POINTS
        write_model(folder / f'{name}.py', tiny.config(**changes), dataset)
    return folder


def room_of(made, name):
    kind = (
        'objects/scene0003_00'
        if name == 'stored'
        else 'scannet_data/scene0003_00_aligned_vert'
    )
    return made / f'data/{kind}.npy'


def asker(made, name):
    return RoomInferencer(made / f'{name}.py', made / f'{name}.pth', device='cpu')


def test_demo_prints_answers_and_draws(made, tmp_path, capsys):
    run_tool_here(
        'rooms/demo.py',
        room_of(made, 'points'),
        QUESTION,
        '--situation',
        SITUATION,
        '--config',
        made / 'points.py',
        '--checkpoint',
        made / 'points.pth',
        '--device',
        'cpu',
        '--out-dir',
        tmp_path,
    )
    printed = capsys.readouterr().out
    assert SITUATION in printed and QUESTION in printed
    names = sorted(path.name for path in tmp_path.iterdir())
    room = room_of(made, 'points').stem
    assert names == [f'00000_{room}.png', f'{room}_activations.png']


# ------------------------------------------------------------------------- answers
@pytest.mark.parametrize('name', ['points', 'stored'])
@pytest.mark.bitwise
def test_answers_equal_those_for_the_data_sets_sample(name, made):
    inferencer = asker(made, name)
    cfg, model = inferencer.cfg, inferencer.model
    (given,) = samples_by_index(cfg, [0])
    texts = dict(
        zip(('situation', 'question'), given.data['data_samples'].text, strict=True)
    )
    with torch.no_grad():
        (expected,) = model.test_step(collate(cfg, [given.data]))
    path = room_of(made, name)  # of which the same points are drawn
    (found,) = inferencer(path, *texts.values(), topk=2)
    best = [a['score'] for a in found['answers']]
    assert_equal_but_for_rounding(
        torch.tensor(best), expected.pred_scores.topk(2).values, model
    )
    assert (
        found['pred_score'] == best[0]
        and found['answers'][0]['answer'] == found['pred_answer']
    )
    assert_equal_but_for_rounding(
        torch.tensor(found['pred_pose']), expected.pred_pose, model
    )
    meta = dict(texts, room=str(path), pred_answer=expected.pred_answer)
    assert found.items() >= meta.items()
    files = made / f'{name}.py', made / f'{name}.pth', path
    assert inference(*files, **texts, topk=2, device='cpu') == [found]


def test_files_arrays_and_meshes_of_one_room_give_the_same(made, tmp_path):
    array = np.load(room_of(made, 'points'))
    array[:, 3:6] = array[:, 3:6].round()
    places = [tmp_path / f'array.{x}' for x in ('npy', 'ply')]
    np.save(places[0], array)
    write_ply(places[1], array[:, :6])
    inferencer = asker(made, 'points')
    alone = [
        inferencer(p, SITUATION, QUESTION)[0]['pred_score'] for p in (*places, array)
    ]
    assert alone == pytest.approx([alone[0]] * 3, abs=1e-4)
    inferencer([array, places[0]], SITUATION, QUESTION, batch_size=2, out_dir=tmp_path)
    assert {p.name for p in tmp_path.glob('*.png')} == {'00000.png', '00001_array.png'}


def test_damaged_rooms_of_a_folder_are_skipped_and_named(made, tmp_path, monkeypatch):
    warnings = record_logs(monkeypatch, 'lm4ve.tasks.base.inputs')
    good = tmp_path / 'good.npy'
    good.write_bytes(room_of(made, 'points').read_bytes())
    (tmp_path / 'cut.npy').write_bytes(good.read_bytes()[:-9])
    (result,) = asker(made, 'points')(tmp_path, SITUATION, QUESTION)
    assert result['room'] == str(good)
    (warning,) = warnings
    assert '1 of 2 files' in warning and 'cut.npy' in warning


def test_invalid_rooms_and_texts_are_refused(made, tmp_path):
    room, cut, picture = room_of(made, 'points'), tmp_path / 'a.npy', tmp_path / 'a.jpg'
    cut.write_bytes(room.read_bytes()[:-9])
    (tmp_path / 'a.ply').write_bytes(b'ply\n')
    picture.touch()
    points, stored = asker(made, 'points'), asker(made, 'stored')
    wrong = [cut, tmp_path / 'a.ply', tmp_path / 'no.npy', [], np.zeros((3, 4))]
    for inferencer, given, *texts in (
        *((points, x, SITUATION, QUESTION) for x in (*wrong, np.full((3, 6), np.nan))),
        (points, room, ' ', QUESTION),
        (points, room, [SITUATION] * 2, [QUESTION] * 3),
        (stored, np.zeros((0, 9)), SITUATION, QUESTION),
    ):
        with pytest.raises(REFUSED):
            inferencer(given, *texts)
    for path, situation in ((picture, SITUATION), (room, None)):
        with pytest.raises(REFUSED):
            samples_of_files(points.cfg, [path], question=QUESTION, situation=situation)


# --------------------------------------------------------------------- activations
@pytest.mark.parametrize('name', MODELS_OF)
def test_activations_are_of_objects_and_words(name, made):
    cfg, model = read_config(made / f'{name}.py'), asker(made, name).model
    count = 5 if name == 'stored' else 6
    padding = torch.arange(count)[None] == 1
    model.object_encoder.register_forward_hook(
        lambda m, x, out: replace(out, padding=padding)
    )
    texts = dict(situation=SITUATION, question=QUESTION)
    (given,) = samples_of_files(cfg, [room_of(made, name)], **texts)
    seen = analyse(model, collate(cfg, [given.data]))
    words = [] if name == 'joint' else ['situation', 'question']
    around = (
        ['encoder'] if name == 'points' else ['encoder', 'mapped', 'block', 'after']
    )
    assert list(seen.points) == around + words
    grids = {word: (6,) for word in words} | dict(
        encoder=(18 if name == 'joint' else count,)
    )
    assert {point: seen.points[point].layout.grid for point in grids} == grids
    assert torch.equal(seen.points['encoder'].layout.padding_mask[:, :count], padding)
    weights = seen.attention['pooling of objects'].weights
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 1))
    assert (weights[0, 0, padding[0]] < 1e-6).all()
    (sample,) = samples_of(seen, model, [given.name], None, heads=1)
    assert (
        sample.facts['situation'] == SITUATION and sample.facts['question'] == QUESTION
    )
    title = sample.sections[-1].maps[0].title
    assert title.removesuffix(', nearly uniform') == 'weight in the answer'
    axes = Figure(figsize=(2, 2)).add_axes((0, 0, 1, 1))
    sample.picture.draw_values(axes, sample.sections[0].maps[0], 'viridis')
    dots = [c for c in axes.collections if isinstance(c, PathCollection)][
        -1
    ].get_offsets()
    assert len(dots) == count - 1
    if name != 'stored':
        centers = seen.outputs[0].pred_boxes[~padding[0], :2]
        np.testing.assert_allclose(
            np.sort(dots, axis=0), np.sort(centers, axis=0), atol=1e-5
        )
        # Colors as they are in the file, which the model does not see.
        points = given.data['inputs']['points']
        np.testing.assert_allclose(sample.picture.points, points, atol=1e-4)
