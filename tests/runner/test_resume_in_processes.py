"""Two processes on gloo draw numbers of their own, and resume one checkpoint of one batch."""

import json
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from lm4ve.runner.command_line import build_runner
from tests.helpers.processes import outputs_of_two
from tests.helpers.runner import accumulating, random_run
from tests.helpers.runner.resumed_in_processes import DrawHook

#: Iterations of an epoch of 19 samples in batches of 4 on each of two processes.
STEPS = 3


def write(folder: Path, name: str, cfg: Config, **fields) -> None:
    cfg.merge_from_dict(fields)
    cfg.launcher = 'pytorch'  # so that DDP wraps the model
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
    (folder / f'{name}.json').write_text(json.dumps(cfg.to_dict()))


def train_both(folder: Path, name: str) -> list[dict]:
    """Train a config of the folder in two processes; return what each has found."""
    results = []
    for output in outputs_of_two('resumed_in_processes.py', folder, name):
        found = output.rpartition('found:')[2]
        results.append(json.loads(found))
    return results


def small(folder: Path, work_dir: str, **changes) -> Config:
    return random_run.config(folder / work_dir, interval=1, **changes)


def test_processes_draw_numbers_of_their_own_and_again_after_a_resume(tmp_path):
    write(tmp_path, 'whole', small(tmp_path, 'whole'))
    whole = train_both(tmp_path, 'whole')
    drawn = whole[0]['drawn'] + whole[1]['drawn']
    assert len(set(drawn)) == len(drawn) == 2 * 3 * STEPS
    write(tmp_path, 'cut', small(tmp_path, 'cut', kill=5))
    train_both(tmp_path, 'cut')
    write(tmp_path, 'again', small(tmp_path, 'cut'), resume='newest')
    for once, again in zip(whole, train_both(tmp_path, 'again'), strict=True):
        assert again['drawn'] == once['drawn'][5:]
        assert again['weights'] == once['weights']


def test_resume_of_added_up_gradients_equals_an_undisturbed_run(tmp_path):
    """An update adds up three iterations; the interval ends within the second one."""

    def make(work_dir: str) -> Config:
        cfg = accumulating.config(2, recipe=12, work_dir=tmp_path / work_dir)
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=5)
        return cfg

    write(tmp_path, 'whole', make('whole'))
    whole = train_both(tmp_path, 'whole')
    cut = make('cut')
    cut.custom_hooks.append(dict(type='KillHook', after=7))
    write(tmp_path, 'cut', cut)
    train_both(tmp_path, 'cut')
    assert [path.name for path in (tmp_path / 'cut').glob('*.pth')] == ['iter_6.pth']
    write(tmp_path, 'again', make('cut'), resume='newest')
    for once, again in zip(whole, train_both(tmp_path, 'again'), strict=True):
        assert again['drawn'] == once['drawn'][6:]
        assert again['weights'] == once['weights']


def test_first_process_draws_what_a_single_one_does(tmp_path):
    write(tmp_path, 'two', small(tmp_path, 'two'))
    first, _ = train_both(tmp_path, 'two')
    cfg = small(tmp_path, 'one')
    cfg.train_dataloader.batch_size = 8
    hook = DrawHook()
    runner = build_runner(cfg)
    runner.register_hook(hook)
    runner.train()
    assert hook.drawn == first['drawn']


def test_samplers_shuffle_alike_after_a_resume_where_seeds_differ(tmp_path):
    randomness = dict(seed=5, diff_rank_seed=True)
    write(tmp_path, 'cut', small(tmp_path, 'cut', kill=5, randomness=randomness))
    before = train_both(tmp_path, 'cut')
    again = small(tmp_path, 'cut', randomness=randomness)
    write(tmp_path, 'again', again, resume='newest')
    after = train_both(tmp_path, 'again')
    second_epoch = []
    for cut, resumed in zip(before, after, strict=True):
        # Ten samples an epoch, of which eight came before the end in its second iteration.
        assert len(cut['read']) == 10 + 8
        second_epoch += cut['read'][10:] + resumed['read'][:2]
    assert set(second_epoch) == set(range(19))


@pytest.mark.parametrize('case', ['none', 'older'])
def test_processes_that_found_different_checkpoints_are_refused(case, tmp_path):
    write(tmp_path, 'cut', small(tmp_path, 'work', kill=5))
    train_both(tmp_path, 'cut')
    other = tmp_path / 'other'
    other.mkdir()
    found = 'begins anew'
    if case == 'older':
        shutil.copy(tmp_path / 'work/iter_2.pth', other)
        found = r"continues from 'iter_2.pth' (iteration 2)"
    write(tmp_path, 'both0', small(tmp_path, 'work'), resume='auto')
    write(tmp_path, 'both1', small(tmp_path, 'other'), resume='auto')
    for result in train_both(tmp_path, 'both'):
        assert "process 0 continues from 'iter_5.pth' (iteration 5)" in result['error']
        assert f'process 1 {found}' in result['error']
        assert 'Fix: a work_dir' in result['error']
        assert not result['drawn']


def test_more_processes_than_before_go_on_with_whole_updates(tmp_path):
    """Eight batches of one process make an update, then four of two processes."""
    cfg = accumulating.config(1, recipe=8, work_dir=tmp_path / 'work')
    cfg.train_cfg.max_epochs = 6
    accumulating.train(cfg)
    cfg = accumulating.config(1, recipe=8, work_dir=tmp_path / 'work')
    write(tmp_path, 'two', cfg, resume='newest', train_cfg=dict(max_epochs=10))
    first, second = train_both(tmp_path, 'two')
    assert first['weights'] == second['weights']
    assert first['epoch'] == 10
    assert first['iter'] == first['max_iters'] == 160
    assert len(first['drawn']) == 4 * 16
