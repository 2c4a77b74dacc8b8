"""Something-Something V2's and VideoMAE's lists become mmaction2's."""

import json

import pytest

pytest.importorskip('mmaction')
from tests.helpers.tools import run_tool_here  # noqa: E402

LABELS = {
    'Holding something next to something': '1',
    'Approaching something with your camera': '0',
}
TRAIN = [
    dict(
        id='78687',
        template='Holding [something] next to [something]',
        label='holding potato',
    ),
    dict(id='42326', template='Approaching [something] with your camera'),
]
ANSWERS = (
    '1;Holding something next to something\n2;Approaching something with your camera\n'
)


def convert(folder, kind: str, files: dict, *options) -> str:
    for name, content in files.items():
        (folder / name).write_text(content)
    paths = *(folder / name for name in files), folder / 'new/list.txt'
    run_tool_here('video/video_lists.py', kind, *paths, *options)
    return paths[-1].read_text()


def test_ssv2_files_are_converted(tmp_path):
    labels = {'labels.json': json.dumps(LABELS)}
    train, answers = (
        labels | {'train.json': json.dumps(TRAIN)},
        labels | {'answers.csv': ANSWERS},
    )
    assert convert(tmp_path, 'ssv2', train) == '78687.webm 1\n42326.webm 0\n'
    assert convert(tmp_path, 'ssv2', train, '--extension', 'mp4').startswith(
        '78687.mp4 1'
    )
    assert convert(tmp_path, 'ssv2', answers) == '1.webm 1\n2.webm 0\n'


@pytest.mark.parametrize('gap', [' ', '  ', '\t'])
def test_videomae_csv_is_converted(gap, tmp_path):
    text, root = (
        f'/data/ssv2/1.mp4{gap}3\n/data/ssv2/a b/2.mp4{gap}0\n',
        ('--root', '/data/ssv2'),
    )
    assert (
        convert(tmp_path, 'videomae', {'a.csv': text}, *root)
        == '1.mp4 3\na b/2.mp4 0\n'
    )
    for wrong in ('/data/ssv2/2.mp4\n', '/other/3 1\n'):
        with pytest.raises(ValueError):
            convert(tmp_path, 'videomae', {'a.csv': text + wrong}, *root)
