"""Something-Something V2's and VideoMAE's lists become mmaction2's."""

import json

import pytest

pytest.importorskip('mmaction')
from lm4ve.errors import UserError  # noqa: E402
from tests.helpers.tools import run_tool_here  # noqa: E402

LABELS = {'Holding something next to something': '1', 'Approaching something with your camera': '0'}
TRAIN = [
    dict(
        id='78687',
        label='holding potato next to vicks vaporub bottle',
        template='Holding [something] next to [something]',
        placeholders=['potato', 'vicks vaporub bottle'],
    ),
    dict(id='42326', template='Approaching [something] with your camera'),
]


def run(*args) -> None:
    run_tool_here('video/video_lists.py', *args)


@pytest.fixture
def files(tmp_path):
    (tmp_path / 'labels.json').write_text(json.dumps(LABELS))
    (tmp_path / 'train.json').write_text(json.dumps(TRAIN))
    return tmp_path


def test_official_json(files):
    out = files / 'new' / 'list.txt'
    run('ssv2', files / 'labels.json', files / 'train.json', out)
    assert out.read_text() == '78687.webm 1\n42326.webm 0\n'
    run('ssv2', files / 'labels.json', files / 'train.json', out, '--extension', 'mp4')
    assert out.read_text() == '78687.mp4 1\n42326.mp4 0\n'


def test_official_test_answers(files):
    (files / 'test.csv').write_text(
        '1;Holding something next to something\n2;Approaching something with your camera\n'
    )
    run('ssv2', files / 'labels.json', files / 'test.csv', files / 'out.txt')
    assert (files / 'out.txt').read_text() == '1.webm 1\n2.webm 0\n'


def test_unknown_templates_and_wrong_labels_are_named(files):
    (files / 'test.json').write_text(json.dumps([dict(id='5')]))
    with pytest.raises(UserError, match="1 of 1 samples.*5: 'None'"):
        run('ssv2', files / 'labels.json', files / 'test.json', files / 'o')
    with pytest.raises(UserError, match='holds a dict, expected a list'):
        run('ssv2', files / 'labels.json', files / 'labels.json', files / 'o')
    (files / 'labels.json').write_text(json.dumps({'a': '1', 'b': '2'}))
    with pytest.raises(UserError, match='numbers 0 to 1'):
        run('ssv2', files / 'labels.json', files / 'train.json', files / 'o')
    assert not (files / 'o').exists()


@pytest.mark.parametrize('gap', [' ', '  ', '\t'])
def test_videomae_csv(gap, tmp_path):
    (tmp_path / 'train.csv').write_text(f'/data/ssv2/1.mp4{gap}3\n/data/ssv2/a b/2.mp4{gap}0\n')
    run('videomae', tmp_path / 'train.csv', tmp_path / 'o', '--root', '/data/ssv2')
    assert (tmp_path / 'o').read_text() == '1.mp4 3\na b/2.mp4 0\n'
    run('videomae', tmp_path / 'train.csv', tmp_path / 'o')
    assert (tmp_path / 'o').read_text().startswith('/data/ssv2/1.mp4 3\n')


def test_videomae_csv_mistakes_are_named(tmp_path):
    (tmp_path / 'a.csv').write_text('/data/1.mp4 3\n/data/2.mp4\n/other/3 1\n')
    with pytest.raises(UserError, match=r'2 line.*line 2 .*line 3'):
        run('videomae', tmp_path / 'a.csv', tmp_path / 'o', '--root', '/data')
    with pytest.raises(UserError, match='does not exist'):
        run('videomae', tmp_path / 'b.csv', tmp_path / 'o')
