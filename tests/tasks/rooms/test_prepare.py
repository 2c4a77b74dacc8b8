"""Scans, vectors of words and answers become files; what the preprocessor makes of a batch."""

import copy
import json
import pickle
from zipfile import BadZipFile

import numpy as np
import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.tasks.rooms.datasets.scene_files import read_scene
from lm4ve.tasks.rooms.models.language import read_word_vectors, split_words
from lm4ve.tasks.rooms.models.objects import read_mean_sizes
from lm4ve.tasks.rooms.models.preprocessor import SQA3DPreprocessor
from tests.helpers import hostile
from tests.helpers.rooms.scans import ALIGNMENT, write_labels, write_scan
from tests.helpers.rooms.scenes import entries, official
from tests.helpers.rooms.tiny import VECTORS, batch
from tests.helpers.tools import run_tool_here

SCENES = ['scene0000_00', 'scene0001_00']


@pytest.fixture
def scans(tmp_path):
    """Two scans: one binary, one of text, whose objects are of the finer mesh."""
    write_scan(tmp_path / 'scans', SCENES[0])
    write_scan(tmp_path / 'scans', SCENES[1], False, '{}_vh_clean.aggregation.json')
    return tmp_path / 'scans'


@pytest.fixture
def prepare(scans, tmp_path, capsys):
    """Runs the tool and returns its counts."""
    labels = write_labels(tmp_path / 'labels.tsv')

    def run(*options, out='scannet_data'):
        tool = 'rooms/prepare_scannet.py'
        run_tool_here(tool, scans, tmp_path / out, '--labels', labels, *options)
        return json.loads(capsys.readouterr().out)

    return run


def arrays_of(tmp_path, scene=SCENES[0], out='scannet_data'):
    kinds = ('vert', 'aligned_vert', 'sem_label', 'ins_label', 'aligned_bbox')
    return {k: np.load(tmp_path / out / f'{scene}_{k}.npy') for k in kinds}


def test_arrays_have_the_values_of_the_files(prepare, scans, tmp_path):
    assert prepare() == dict(made=2, done_before=0, skipped=0, examples=[])
    found, other = (arrays_of(tmp_path, scene) for scene in SCENES)
    assert all(np.allclose(found[k], other[k], atol=1e-6) for k in found)
    assert found['sem_label'].tolist() == [2] * 4 + [5] * 4 + [7] * 4 + [0] * 4
    assert found['ins_label'].tolist() == [1] * 4 + [2] * 4 + [4] * 4 + [0] * 4
    # Chair and table, but no floor: center, size, NYU40 id, object.
    centers = np.array([[1.5, 2.25, 0.625], [3.5, 1.25, 0.325]])
    moved = centers @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3]
    rest = [[0.5, 1, 0.25, 5, 1], [0.5, 1, 0.25, 7, 3]]
    np.testing.assert_allclose(
        found['aligned_bbox'], np.hstack((moved, rest)), atol=1e-5
    )
    start, text = (
        tmp_path / 'scannet_data' / SCENES[0],
        scans / SCENES[0] / f'{SCENES[0]}.txt',
    )
    scene = read_scene(str(start), str(text))
    np.testing.assert_array_equal(scene['points'], found['aligned_vert'])
    assert scene['labels'].tolist() == [2, 4]


def test_drawn_points_are_rows_of_the_whole_scan(prepare, tmp_path):
    prepare()
    prepare('--max-points', 7, out='few')
    whole, found = arrays_of(tmp_path), arrays_of(tmp_path, out='few')
    rows = [
        int(np.flatnonzero((whole['vert'] == p).all(axis=1))[0]) for p in found['vert']
    ]
    assert rows == sorted(set(rows)) and len(rows) == 7
    for kind in ('aligned_vert', 'sem_label', 'ins_label'):
        np.testing.assert_array_equal(found[kind], whole[kind][rows])
    np.testing.assert_array_equal(found['aligned_bbox'], whole['aligned_bbox'])


def edited(name, change):
    return lambda folder: hostile.edit(folder / name.format(folder.name), change)


def cut_mesh(folder):
    path = folder / f'{folder.name}_vh_clean_2.ply'
    path.write_bytes(path.read_bytes()[:-3])


SEGMENTS = '{}_vh_clean_2.0.010000.segs.json'
DAMAGES = dict(
    mesh=cut_mesh,
    segments=edited(SEGMENTS, lambda c: c['segIndices'].pop()),
    label=edited(
        '{}.aggregation.json', lambda c: c['segGroups'][0].update(label='sofa')
    ),
    missing=lambda folder: (folder / f'{folder.name}.aggregation.json').unlink(),
)


@pytest.mark.parametrize('kind', DAMAGES)
def test_damaged_scans_are_skipped_or_refused(kind, prepare, scans, tmp_path):
    DAMAGES[kind](scans / SCENES[0])
    counts = prepare()
    assert (counts['made'], counts['skipped']) == (1, 1) and SCENES[0] in counts[
        'examples'
    ][0]
    assert not list(tmp_path.glob(f'scannet_data/{SCENES[0]}*'))
    with pytest.raises(UserError, match=SCENES[0]):
        prepare('--on-corrupt', 'refuse')


def test_arrays_of_another_program_stay(prepare, tmp_path):
    (tmp_path / 'scannet_data').mkdir()
    np.save(tmp_path / f'scannet_data/{SCENES[0]}_vert.npy', np.zeros(3))
    with pytest.raises(UserError, match='another program'):
        prepare()


ENTRIES = entries(['scene0000_00', 'scene0001_00'])
GLOVE = {
    'unk': (1, 2),
    'what': (3, 4),
    'zebra': (5, 6),
    'table': (7, 8),
    '?': (9, 0),
    'Is': (0, 1),
}
REFUSED = (ValueError, LookupError, OSError, BadZipFile)


@pytest.fixture
def folder(tmp_path):
    lines = ''.join(f'{word} {x} {y}\n' for word, (x, y) in GLOVE.items())
    # As in GloVe's largest file: a word that holds spaces.
    (tmp_path / 'glove.txt').write_text(lines + '. . 0.5 0.25\n')
    questions, annotations = official(ENTRIES)
    for name, content in dict(
        list=ENTRIES, questions=questions, annotations=annotations
    ).items():
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize('kind', ['list', 'questions'])
def test_vectors_of_the_words_of_texts_are_kept(kind, folder, capsys):
    out = folder / 'glove.npz'
    tool = 'rooms/make_word_vectors.py'
    run_tool_here(tool, folder / 'glove.txt', out, folder / f'{kind}.json')
    texts = ' '.join(f'{e["situation"]} {e["question"]}' for e in ENTRIES)
    words = set(texts.replace('.', ' . ').replace('?', ' ? ').split())
    kept = {
        w: v
        for w, v in GLOVE.items()
        if w in {*words, *(w.lower() for w in words), 'unk'}
    }
    assert 'zebra' not in kept and len(kept) > 2
    for found in (
        read_word_vectors(out),
        copy.deepcopy(read_word_vectors(folder / 'glove.txt')),
    ):
        assert found.rows.keys() >= kept.keys()
        for word, vector in kept.items():
            np.testing.assert_array_equal(found.vectors[found.rows[word]], vector)
    assert read_word_vectors(out).rows.keys() == kept.keys()
    assert (
        f'{len(words & GLOVE.keys())} of the {len(words)} words'
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    'content',
    ['what 1 2\n', 'unk 1 2\nwhat 1\n', 'unk a b\n', 'unk nan 1\n', '', 'unk 1 2'],
)
def test_another_file_than_glove_is_refused(content, folder):
    (folder / 'glove.txt').write_text(content)
    args = folder / 'glove.txt', folder / 'out.npz', folder / 'list.json'
    with pytest.raises(REFUSED):
        run_tool_here('rooms/make_word_vectors.py', *args)
    assert not (folder / 'out.npz').exists()


@pytest.mark.parametrize('read', [read_word_vectors, read_mean_sizes])
def test_pickles_and_wrong_checksums_are_refused(read, tmp_path):
    (tmp_path / 'a.p').write_bytes(pickle.dumps(GLOVE))
    np.savez(
        tmp_path / 'objects.npz', words=np.array(['unk'], dtype=object), vectors=[[1.0]]
    )
    path = tmp_path / 'a.npz'
    np.savez(path, words=['unk'], vectors=np.ones((1, 3), dtype='f4'))
    path.write_bytes(path.read_bytes().replace(np.array('unk').tobytes(), b'x' * 12, 1))
    for name in ('a.p', 'objects.npz', 'a.npz', 'none.npz'):
        with pytest.raises(REFUSED):
            read(tmp_path / name)


@pytest.mark.parametrize('kind', ['list', 'annotations'])
def test_every_answer_is_counted(kind, folder, capsys):
    out, tool = folder / 'answer_counter.json', 'rooms/make_answer_counter.py'
    run_tool_here(tool, out, folder / f'{kind}.json')
    expected = [a for e in ENTRIES for a in e['answers']]
    assert sorted(json.loads(out.read_text())) == sorted(expected)
    assert (
        f'{len(expected)} answers, {len(set(expected))} different'
        in capsys.readouterr().out
    )
    with pytest.raises(REFUSED):
        run_tool_here(tool, out, folder / 'questions.json')


# ------------------------------------------------------------------- the preprocessor
def preprocessor(**changes):
    return SQA3DPreprocessor(**(dict(word_vectors=VECTORS) | changes))


def test_colors_are_normalized_in_a_copy():
    data = batch()
    before = copy.deepcopy(data['inputs']['points'])
    found = preprocessor()(data)['inputs']['points']
    assert all(
        torch.equal(a, b) for a, b in zip(data['inputs']['points'], before, strict=True)
    )
    colors = (before[0][:, 3:6] - torch.tensor([109.8, 97.2, 83.8])) / 256
    torch.testing.assert_close(found[0, :, 3:6], colors)
    assert torch.equal(found[0][:, [0, 1, 2, 6]], before[0][:, [0, 1, 2, 6]])
    assert torch.equal(
        preprocessor(color_columns=())(data)['inputs']['points'][0], before[0]
    )
    torch.testing.assert_close(preprocessor().restore_colors(found)[0], before[0])
    released = preprocessor(color_passes=2)
    found = released(data)['inputs']['points']
    expected = (colors - torch.tensor([109.8, 97.2, 83.8])) / 256
    torch.testing.assert_close(found[0, :, 3:6], expected)
    with pytest.raises(UserError, match='color_mean'):
        preprocessor(color_mean=(109.8, 97.2))
    torch.testing.assert_close(
        released.restore_colors(found)[0], before[0], rtol=0, atol=0.01
    )


def test_words_are_looked_up_as_the_release_does():
    # Every space but one behind a word is a word, as for spaCy's bare tokenizer.
    for text, expected in {
        'I am here. What is it?': 'I am here . What is it ?',
        'Is it red ?': 'Is it red unk ?',
        'Hm ...': 'Hm unk . . .',
        ' a  b\tc  ': 'unk a unk b unk c unk',
    }.items():
        assert split_words(text) == expected.split()
    data = batch((9, 9), text=['I am left.', 'What is left?'])
    inputs = preprocessor()(data)['inputs']
    rows = [VECTORS[w] for w in ('unk', 'is', 'left', '?')]
    torch.testing.assert_close(inputs['question'][0], torch.tensor(rows))
    lower = preprocessor(lower_case=True)(data)['inputs']
    torch.testing.assert_close(lower['question'][0, 0], torch.tensor(VECTORS['what']))
    hidden = preprocessor(use_situation=False)(data)['inputs']
    torch.testing.assert_close(
        hidden['situation'][0], torch.tensor([VECTORS['unk']] * 4)
    )
    assert torch.equal(hidden['question'], inputs['question'])


def test_long_texts_are_cut_and_counted():
    short = preprocessor(max_length=3)
    inputs = short(batch((9, 9)))['inputs']
    assert inputs['situation'].shape[1] == inputs['question'].shape[1] == 3
    assert short.num_truncated == 4 and not inputs['situation_padding'].any()
