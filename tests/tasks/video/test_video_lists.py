"""Something-Something V2's and VideoMAE's lists become mmaction2's."""

import json

import pytest

pytest.importorskip('mmaction')
from tests.helpers.tools import run_tool_here  # noqa: E402

LABELS = {'Holding something next to something': '1', 'Approaching something with your camera': '0'}
TRAIN = [
    dict(id='78687', template='Holding [something] next to [something]', label='holding potato'),
    dict(id='42326', template='Approaching [something] with your camera'),
]
ANSWERS = '1;Holding something next to something\n2;Approaching something with your camera\n'


@pytest.fixture
def run(tmp_path):
    """Return a function that converts files of the given contents."""

    def run(kind: str, *contents, options=(), suffix='.json') -> str:
        files = [tmp_path / f'{i}{".json" if i == 0 else suffix}' for i in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.write_text(content if isinstance(content, str) else json.dumps(content))
        run_tool_here('video/video_lists.py', kind, *files, tmp_path / 'new/list.txt', *options)
        return (tmp_path / 'new/list.txt').read_text()

    return run


def test_ssv2_files_are_converted(run):
    assert run('ssv2', LABELS, TRAIN) == '78687.webm 1\n42326.webm 0\n'
    assert run('ssv2', LABELS, TRAIN, options=['--extension', 'mp4']).startswith('78687.mp4 1')
    assert run('ssv2', LABELS, ANSWERS, suffix='.csv') == '1.webm 1\n2.webm 0\n'


@pytest.mark.parametrize('gap', [' ', '  ', '\t'])
def test_videomae_csv_is_converted(gap, run):
    text = f'/data/ssv2/1.mp4{gap}3\n/data/ssv2/a b/2.mp4{gap}0\n'
    assert run('videomae', text, options=['--root', '/data/ssv2']) == '1.mp4 3\na b/2.mp4 0\n'
    assert run('videomae', text).startswith('/data/ssv2/1.mp4 3\n')
    for wrong in ('/data/ssv2/2.mp4\n', '/other/3 1\n'):
        with pytest.raises(ValueError):
            run('videomae', text + wrong, options=['--root', '/data/ssv2'])
