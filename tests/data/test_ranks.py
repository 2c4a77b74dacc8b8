"""Two processes share out the reading of data, and have what one process has."""

import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from lm4ve.tasks.image import CheckedImageFolder
from lm4ve.tasks.vqa import CaptionFiles, VQAFiles
from tests.helpers.data.in_ranks import entries_of
from tests.helpers.processes import environment
from tests.helpers.tasks import ROOT

NUM_IMAGES = 9
DAMAGED = ['3.png', '6.png']


def write_images(folder, rng):
    (folder / 'a').mkdir(parents=True)
    for i in range(NUM_IMAGES):
        pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / 'a' / f'{i}.png')
    for name in DAMAGED:
        (folder / 'a' / name).write_bytes(b'no picture')


def write_lines(path, rows):
    path.write_text('\n'.join(json.dumps(row) for row in rows))


def write_lost(folder, rng):
    """Images of which storage does not give one, a link to itself, and questions."""
    write_images(folder, rng)
    (folder / 'a/1.png').unlink()
    (folder / 'a/1.png').symlink_to('1.png')
    rows = [dict(image=f'a/{i}.png', question='How?', answer='so') for i in (0, 1)]
    write_lines(folder / 'questions.jsonl', rows)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images, and questions and captions about them."""
    folder = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    write_images(folder / 'images', rng)
    questions = []
    captions = []
    for i in range(NUM_IMAGES):
        questions.append(dict(image=f'a/{i}.png', question=f'How {i}?', answer=str(i)))
        captions.append(dict(image=f'a/{i}.png', captions=[f'one {i}', f'two {i}']))
    write_lines(folder / 'images/questions.jsonl', questions)
    write_lines(folder / 'images/captions.jsonl', captions)
    (folder / 'damaged.cache').write_bytes(b'no cache')
    write_lost(folder / 'lost', rng)
    (folder / 'temporary').mkdir()
    return folder


@pytest.fixture(scope='module')
def seen(folder):
    """What each of two processes saw."""
    script = ROOT / 'tests/helpers/data/in_ranks.py'
    changes = dict(TMPDIR=str(folder / 'temporary'))
    jobs = []
    for rank in (0, 1):
        job = subprocess.Popen(
            ['python', script, str(rank), folder],
            env=environment() | changes,
            text=True,
            stderr=subprocess.PIPE,
        )
        jobs.append(job)
    ends = [job.communicate(timeout=300)[1][-2000:] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], '\n'.join(ends)
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in (0, 1)]


def test_each_image_is_read_by_one_rank_and_known_to_all(seen, folder):
    first, second = (rank['images'] for rank in seen)
    names = [f'{i}.png' for i in range(NUM_IMAGES)]
    assert sorted(first['read'] + second['read']) == names
    assert abs(len(first['read']) - len(second['read'])) == 1
    alone = CheckedImageFolder(
        data_root=str(folder / 'images'), test_mode=True, on_corrupt='skip'
    )
    for rank in (first, second):
        assert rank['corrupt'] == DAMAGED
        assert rank['kept'] == len(alone) == NUM_IMAGES - len(DAMAGED)


def test_texts_are_read_once_a_machine_and_mapped_by_all(seen, folder):
    root = str(folder / 'images')
    options = dict(pipeline=[], test_mode=True, on_corrupt='skip')
    questions = VQAFiles('questions.jsonl', root, **options)
    captions = CaptionFiles('captions.jsonl', root, num_negatives=1)
    for rank in seen:
        state = rank['questions']
        assert state['questions'] == json.loads(json.dumps(entries_of(questions)))
        assert state['captions'] == json.loads(json.dumps(entries_of(captions)))
        assert state['corrupt'] == DAMAGED
        assert not state['owns_bytes']
        # The file that both have mapped is gone.
        assert rank['left'] == []


def test_all_ranks_raise_the_error_of_the_one_that_works(seen):
    first, second = (rank['errors'] for rank in seen)
    assert first.pop('broken') == 'disk is worn out'
    assert second.pop('broken') == 'OSError: disk is worn out'
    assert first == second
    for kind in ('lost', 'asked'):
        assert '1 of ' in first[kind]
        assert "a/1.png' is not given by its storage (ELOOP" in first[kind]
    assert 'none.jsonl' in first['missing']
    assert 'killed by SIGKILL' in first['killed']
    assert 'damaged.cache' in first['cache']
