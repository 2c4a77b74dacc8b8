"""A checkpoint that training cannot go on from is one message, whatever is wrong in it."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.optim import CosineAnnealingLR

from lm4ve.errors import CheckpointError, UserError
from lm4ve.runner.command_line import build_runner
from lm4ve.runner.resumable import find_gap
from lm4ve.runner.resuming import check_resumable, newest_checkpoint
from tests.helpers.tasks import CONFIGS
from tests.runner.test_resume import config, train

LAST = 6
#: What stands in the place of a value; the last stands for nothing at all.
OTHERS = (None, 'x', -1, 0.5, [], {}, [None], {'a': 1}, torch.ones(3), True, KeyError)


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> dict:
    """The content of a checkpoint from the middle of a small run."""
    folder = tmp_path_factory.mktemp('run')
    train(folder, kill=LAST + 1, interval=LAST)
    return torch.load(folder / f'iter_{LAST}.pth', weights_only=True)


def places(value: object, *path) -> Iterator[tuple]:
    """Yield the path of everything in nested dicts and lists, two entries of each."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], *path, key)
    elif isinstance(value, list):
        for i in range(min(len(value), 2)):
            yield from places(value[i], *path, i)


def changed(content: dict, path: tuple, other: object) -> dict:
    content = copy.deepcopy(content)
    *way, last = path
    place = content
    for key in way:
        place = place[key]
    if other is KeyError:
        del place[last]
    else:
        place[last] = other
    return content


def resume(content: dict, folder: Path) -> None:
    """Resume from a content as the tool does, and train two steps."""
    torch.save(content, folder / 'given.pth')
    cfg = config(folder, resume=True, loop=dict(by_epoch=True, max_epochs=2))
    cfg.load_from = str(folder / 'given.pth')
    check_resumable(cfg.load_from)
    build_runner(cfg).train()


def test_whatever_is_wrong_in_it_training_goes_on_or_says_so(saved, tmp_path):
    """Forty of about 1,500 changes; all of them were tried once."""
    parts = {k: v for k, v in saved.items() if k != 'state_dict'}
    paths = [p for p in places(parts) if p]
    assert len(paths) > 100
    choices = random.Random(0)
    refused = 0
    for i in range(40):
        path, other = choices.choice(paths), choices.choice(OTHERS)
        folder = tmp_path / str(i)
        folder.mkdir()
        try:
            resume(changed(saved, path, other), folder)
        except UserError as e:
            refused += 1
            assert 'Fix: ' in str(e), (path, other)
        except Exception as e:
            raise AssertionError(f'{path} = {other!r}') from e
    assert refused > 10


#: Where the content is changed -> to what, and what the message says.
GAPS = {
    'no meta': (('meta',), KeyError, 'meta is missing'),
    'no epoch': (('meta', 'epoch'), KeyError, r"meta\['epoch'\] is missing"),
    'a word': (('meta', 'iter'), 'six', r"meta\['iter'\] is 'six', expected a whole number"),
    'no hub': (('message_hub',), KeyError, 'message_hub is missing'),
    'half a hub': (('message_hub', 'runtime_info'), KeyError, 'runtime_info.* is missing'),
    'a score': (('message_hub', 'runtime_info', 'best_score'), 'high', 'best_score'),
    'scalars': (('message_hub', 'log_scalars'), [1], 'log_scalars.* is list, expected a dict'),
    'a group': (('optimizer', 'param_groups', 0, 'lr'), 'fast', r"\['lr'\] is 'fast'"),
    'a step': (('param_schedulers', 0, 'last_step'), 1.5, 'last_step.* is 1.5, expected a whole'),
}


@pytest.mark.parametrize('path, other, said', GAPS.values(), ids=GAPS)
def test_the_place_and_what_should_be_there_are_named(saved, path, other, said, tmp_path):
    content = changed(saved, path, other)
    torch.save(content, tmp_path / 'epoch_2.pth')
    with pytest.raises(CheckpointError, match=said):
        check_resumable(tmp_path / 'epoch_2.pth')
    # And a run does not stop for it where it has an older one.
    torch.save(saved, tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    path, notes = newest_checkpoint(tmp_path)
    assert path == tmp_path / 'epoch_1.pth' and 'epoch_2.pth' in notes[0]


def test_what_our_hooks_write_has_no_gap(saved):
    assert find_gap(saved) is None


def test_a_schedule_that_has_not_begun_can_be_resumed(saved):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    later = CosineAnnealingLR(optimizer, T_max=2, begin=5, end=7)
    optimizer.step()
    later.step()
    assert later.last_step < 0
    content = copy.deepcopy(saved)
    content['param_schedulers'].append(later.state_dict())
    assert find_gap(content) is None
    content['param_schedulers'][-1]['last_step'] = -2
    assert 'last_step' in find_gap(content)


def test_another_optimizer_is_told(saved, tmp_path):
    saved = copy.deepcopy(saved)
    saved['optimizer']['param_groups'][0]['params'].pop()
    with pytest.raises(CheckpointError, match=r'cannot be resumed by this config \(ValueError'):
        resume(saved, tmp_path)


def test_the_command_ends_in_one_message(saved, tmp_path, fails):
    pytest.importorskip('mmpretrain')
    torch.save(changed(saved, ('meta', 'epoch'), None), tmp_path / 'a.pth')
    words = '--resume', tmp_path / 'a.pth', '--work-dir', tmp_path / 'work'
    said = fails('train.py', CONFIGS / 'lm4ve/vit-demo_none_digits.py', *words)
    assert said.startswith('Training cannot continue from') and 'Fix:' in said
