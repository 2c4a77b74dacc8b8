"""The policy for corrupt files, with a data set of text files."""

from pathlib import Path

import pytest

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.errors import UserError
from tests.helpers.logs import record_logs


class Notes(IntegrityMixin):
    """Text files; one that holds 'bad' is corrupt, 'deep' only when decoded."""

    noun = 'note'

    def __init__(self, paths, **kwargs):
        self.paths = paths
        # MMEngine collects garbage when it serializes: slow beside torch.
        super().__init__(pipeline=[self.read], serialize_data=False, **kwargs)

    def load_data_list(self):
        return [dict(path=str(p)) for p in self.paths]

    @staticmethod
    def read(results):
        results['text'] = Path(results['path']).read_text()
        if results['text'] == 'deep':
            raise OSError('the decoder gives up')
        return results['text']

    def path_of(self, info):
        return info['path']

    def find_defect(self, path, decode=False):
        text = Path(path).read_text()
        if text == 'bad':
            return 'is bad'
        if decode and text == 'deep':
            return 'is bad inside'
        return None


@pytest.fixture
def log(monkeypatch):
    return record_logs(monkeypatch, 'lm4ve.data.integrity')


@pytest.fixture
def write(tmp_path):
    def write(*texts):
        paths = [tmp_path / f'{i}.txt' for i in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return paths

    return write


DEPTHS = [
    (None, False, ['a', 'bad', 'deep']),
    (None, True, ['a', 'deep']),
    (True, False, ['a', 'deep']),
    (True, True, ['a', 'deep']),
    (False, True, ['a', 'bad', 'deep']),
    ('decode', False, ['a']),
    ('decode', True, ['a']),
]


@pytest.mark.parametrize('verify, test_mode, kept', DEPTHS)
def test_verify_selects_the_depth_of_the_scan(verify, test_mode, kept, write, log):
    options = dict(verify=verify, test_mode=test_mode, on_corrupt='skip')
    data = Notes(write('a', 'bad', 'deep'), **options)
    texts = [Path(data.get_data_info(i)['path']).read_text() for i in range(len(data))]
    assert texts == kept
    assert data.num_corrupt == 3 - len(kept)


@pytest.mark.parametrize('on_corrupt', [None, 'refuse'])
def test_all_corrupt_files_of_a_test_are_named(on_corrupt, write):
    with pytest.raises(UserError, match="2 of 3 notes are corrupt.*0.txt' is bad.*2"):
        Notes(write('bad', 'a', 'bad'), test_mode=True, on_corrupt=on_corrupt)


def test_unscanned_corrupt_test_file_is_an_error(write, log):
    paths = write('deep', 'bad')
    with pytest.raises(UserError, match="0.txt' is bad inside.*verify='decode'"):
        Notes(paths, test_mode=True, on_corrupt='skip')[0]
    with pytest.raises(UserError, match="1.txt' is bad.*verify="):
        Notes(paths, test_mode=True, verify=False)[1]
