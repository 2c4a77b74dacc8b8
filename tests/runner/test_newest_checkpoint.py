"""Files are whole or as they were; resuming finds the newest whole checkpoint."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.files import clear_left_behind, machine, replacing, write_atomically
from lm4ve.runner.resume import choose_start, newest_checkpoint
from tests.helpers.runner.toy_neck import make_runner


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints and a pointer to the last."""
    for epoch in (1, 2, 3):
        content = dict(
            meta=dict(epoch=epoch), message_hub={}, state_dict=dict(w=torch.ones(9000))
        )
        torch.save(content, tmp_path / f'epoch_{epoch}.pth')
        os.utime(tmp_path / f'epoch_{epoch}.pth', (epoch, epoch))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    return tmp_path


DAMAGES = {
    'cut': lambda data: data[: len(data) // 2],
    'flipped': lambda data: data[:9999] + bytes([data[9999] ^ 255]) + data[10000:],
    'empty': lambda data: b'',
}


def damage(path, how: str = 'cut') -> None:
    path.write_bytes(DAMAGES[how](path.read_bytes()))


@pytest.mark.parametrize('how', DAMAGES)
def test_damaged_checkpoint_is_skipped(folder, how):
    assert newest_checkpoint(folder) == (folder / 'epoch_3.pth', [])
    damage(folder / 'epoch_3.pth', how)
    path, (note,) = newest_checkpoint(folder)
    assert path == folder / 'epoch_2.pth' and 'epoch_3.pth' in note
    # What comes after the named one is of an earlier run.
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    assert newest_checkpoint(folder) == (folder / 'epoch_1.pth', [])


@pytest.mark.parametrize(
    'text', ['', '\0' * 4, 'a' * 9000, 'a/\0epoch_3.pth', '\x1b[31m', None]
)
def test_damaged_pointer_gives_newest_file(folder, text):
    (folder / 'last_checkpoint').unlink()
    if text is not None:
        (folder / 'last_checkpoint').write_text(text)
    path, notes = newest_checkpoint(folder)
    assert path == folder / 'epoch_3.pth' and 'damaged' in notes[0]


@pytest.mark.parametrize('move', [shutil.copytree, os.rename])
def test_copied_work_dir_uses_its_own_file(folder, move):
    other = folder.with_name(f'{folder.name}-other')
    move(folder, other)
    assert newest_checkpoint(other) == (other / 'epoch_3.pth', [])


def test_only_damaged_checkpoints_raise(folder):
    for path in folder.glob('*.pth'):
        damage(path)
    with pytest.raises(UserError, match=r'epoch_3.*epoch_2'):
        newest_checkpoint(folder)


def test_weights_alone_cannot_be_resumed(tmp_path):
    torch.save(dict(state_dict=dict(w=torch.ones(2))), tmp_path / 'epoch_1.pth')
    with pytest.raises(UserError, match='load_from'):
        newest_checkpoint(tmp_path)


def test_empty_work_dir_needs_auto(tmp_path):
    weights = tmp_path / 'weights.pth'
    weights.touch()
    cfg = Config(dict(work_dir=str(tmp_path), load_from=str(weights), resume='newest'))
    with pytest.raises(UserError, match=r'no checkpoint in work_dir=.*--resume auto'):
        choose_start(cfg)
    cfg.resume = 'auto'
    choose_start(cfg)
    assert (cfg.resume, cfg.load_from) == (False, str(weights))


def test_start_is_the_newest_checkpoint_in_the_place_of_weights(folder):
    cfg = Config(dict(work_dir=str(folder), load_from='gone.pth', resume='auto'))
    choose_start(cfg)
    assert cfg.resume is True
    assert Path(cfg.load_from).name == 'epoch_3.pth'


def test_damaged_start_and_another_word_are_refused(folder):
    damage(folder / 'epoch_3.pth')
    cfg = Config(dict(work_dir=str(folder), load_from=str(folder / 'epoch_3.pth')))
    cfg.resume = True
    with pytest.raises(UserError, match='epoch_3'):
        choose_start(cfg)
    cfg.resume = 'newset'
    with pytest.raises(UserError, match="^resume='newset' must be one of"):
        choose_start(cfg)


def left_behind(folder, host=machine(), process=999_999_999, suffix='.pth'):
    path = folder / f'.epoch_9.{host}-{process}-0a1b2c3d.tmp{suffix}'
    path.write_bytes(bytes(1000))
    return path


def test_only_abandoned_temporary_files_are_deleted(tmp_path):
    dead = left_behind(tmp_path)
    pointer = left_behind(tmp_path, process=os.getpid(), suffix='')
    alive = left_behind(tmp_path, process=os.getppid())
    elsewhere, old = (left_behind(tmp_path, 'other-node.cluster', n) for n in (5, 6))
    os.utime(old, (time.time() - 7200,) * 2)
    foreign = tmp_path / '.notes.tmp.pth'
    foreign.write_text('mine')
    assert set(clear_left_behind(tmp_path)) == {dead, pointer, old}
    assert all(p.exists() for p in (alive, elsewhere, foreign))
    dead.touch()
    make_runner(tmp_path, epochs=1).train()
    assert not dead.exists() and (tmp_path / 'epoch_1.pth').exists()


@pytest.mark.parametrize(
    'error, raised', [(OSError(5, 'I/O'), UserError), (KeyError(), KeyError)]
)
def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch, error, raised):
    path = tmp_path / 'file'
    write_atomically(b'old', path)

    def broken(*args):
        raise error

    monkeypatch.setattr(os, 'replace', broken)
    with pytest.raises(raised):
        write_atomically(b'new', path)
    assert path.read_bytes() == b'old' and [*tmp_path.iterdir()] == [path]


def test_writers_have_temporary_names_of_their_own(tmp_path):
    path = tmp_path / 'new' / 'picture.png'
    with replacing(path) as one, replacing(path) as two:
        assert one != two and {one.parent, two.parent} == {path.parent}
        assert one.suffix == '.png' and not path.exists()
        one.write_text('first')
        two.write_text('second')
    assert path.read_text() == 'first' and [*path.parent.iterdir()] == [path]
