"""Each config of "Usual wishes" trains, and does what the page says; its commands run."""

import csv
import shlex
from collections.abc import Callable

import pytest
import torch
from mmengine.runner import Runner

from lm4ve.commands.flags import parser_of
from lm4ve.commands.train import training_config
from lm4ve.convert.packaged_encoders import PACKAGED_ENCODERS
from lm4ve.runner.command_line import build_runner
from tests.helpers.code_blocks import Block, blocks_of
from tests.helpers.image import images
from tests.helpers.shrink import require_package
from tests.helpers.tools import run_tool_here

pytest.importorskip('mmpretrain')
pytestmark = pytest.mark.slow

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: Small batches, read in this process.
OPTIONS = [f'{name}.num_workers=0' for name in LOADERS]
OPTIONS += [f'{name}.batch_size=4' for name in LOADERS]
#: Pictures of each class to train.
CATS, DOGS = 6, 2


def python_blocks(page: str) -> dict[str, Block]:
    """Return the blocks of a page that are files, by the name in their first line."""
    found = {}
    for block in blocks_of(page):
        words = block.code.split()
        if block.language == 'python' and words[0] == '#' and words[1].endswith('.py'):
            found[words[1]] = block
    return found


PAGE = 'docs/guides/wishes.md'
FILES = python_blocks(PAGE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder: the page's files, the config that they inherit, and pictures."""
    require_package('package:efficientnet-lite0', PACKAGED_ENCODERS)
    photos = python_blocks('docs/get_started/your_own_data.md')['photos.py']
    for name, block in {**FILES, 'photos.py': photos}.items():
        (tmp_path / name).write_text(block.code)
    for split in ('train', 'val'):
        root = tmp_path / 'data/photos' / split
        images.fill(root, ['cat'], CATS)
        images.fill(root, ['dog'], DOGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def train(name: str, epochs: int = 1, options: tuple[str, ...] = ()) -> Runner:
    """Train a config of the page as ``lm4ve train`` does; return the runner."""
    words = [name, '--epochs', str(epochs), '--cfg-options', *OPTIONS, *options]
    cfg = training_config(parser_of('train').parse_args(words))
    runner = build_runner(cfg, short_console=True)
    runner.train()
    return runner


def stop_early(folder, capsys) -> None:
    never = ('custom_hooks.0.patience=1', 'custom_hooks.0.min_delta=100')
    runner = train('stop_early.py', 4, never)
    assert runner.epoch == 2
    assert 'did not improve' in capsys.readouterr().out


def keep_best(folder, capsys) -> None:
    train('keep_best.py')
    best = folder / 'work_dirs/keep_best/best_accuracy_top1_epoch_1.pth'
    assert best.is_file()
    assert str(best) in capsys.readouterr().out.splitlines()[-1]


def weights(folder, capsys) -> None:
    head = train('weights.py').model.head
    scores = torch.zeros(2, 2)
    losses = [head.loss_module(scores, torch.tensor([label] * 2)) for label in (0, 1)]
    torch.testing.assert_close(losses[1], 3 * losses[0])


def balance(folder, capsys) -> None:
    dataset = train('balance.py').train_dataloader.dataset
    labels = [dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))]
    assert labels.count(0) == CATS and labels.count(1) > DOGS


def per_class(folder, capsys) -> None:
    train('per_class.py')
    capsys.readouterr()
    run_test('per_class.py work_dirs/per_class/epoch_1.pth')
    text = capsys.readouterr().out
    for words in ('f1-score', '  cat ', '1 dog ', 'confusion_matrix.png'):
        assert words in text


def frozen(folder, capsys) -> None:
    runner = train('frozen.py')
    before = runner.model.backbone.state_dict()
    trained = {name: tensor.clone() for name, tensor in before.items()}
    runner.model.backbone.init_weights()
    assert_equal_states(trained, runner.model.backbone.state_dict())
    mapper = runner.model.neck.mapper_in.weight
    assert mapper in runner.optim_wrapper.optimizer.state


def still(folder, capsys) -> None:
    runner = train('still.py')
    trained = dict(runner.model.backbone.named_parameters())
    trained = {name: tensor.detach().clone() for name, tensor in trained.items()}
    runner.model.backbone.init_weights()
    assert_equal_states(trained, dict(runner.model.backbone.named_parameters()))


def assert_equal_states(trained: dict, packaged: dict) -> None:
    for name, tensor in packaged.items():
        assert torch.equal(trained[name], tensor), name


def curves(folder, capsys) -> None:
    pytest.importorskip('wandb')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('WANDB_MODE', 'offline')
        train('curves.py')
    assert [*folder.glob('work_dirs/curves/*/vis_data/wandb/offline-run-*')]


def steps(folder, capsys) -> None:
    runner = train('steps.py', 3)
    optimizer = runner.optim_wrapper.optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    rates = [group['lr'] for group in optimizer.param_groups]
    assert max(rates) == pytest.approx(0.01 * 0.1)  # of the third epoch


def halve(folder, capsys) -> None:
    runner = train('halve.py', 3, ('param_scheduler.0.interval=1',))
    rates = [group['lr'] for group in runner.optim_wrapper.optimizer.param_groups]
    assert max(rates) == pytest.approx(1e-3 / 2**2)  # of the third epoch


#: Config of the page -> what trains it and checks what it does.
WISHES: dict[str, Callable] = {
    'stop_early.py': stop_early,
    'keep_best.py': keep_best,
    'weights.py': weights,
    'balance.py': balance,
    'per_class.py': per_class,
    'frozen.py': frozen,
    'still.py': still,
    'curves.py': curves,
    'steps.py': steps,
    'halve.py': halve,
}
#: What a config of the page imports.
MODULES = {'halving.py'}


def test_every_config_of_the_page_has_a_test():
    assert {*WISHES} | MODULES == {*FILES}


@pytest.mark.parametrize('name', WISHES)
def test_wish_comes_true(name, folder, capsys):
    WISHES[name](folder, capsys)


def run_test(words: str) -> None:
    """Run ``lm4ve test``."""
    run_tool_here('test.py', *words.split(), '--cfg-options', *OPTIONS)


def test_commands_of_the_page_run(folder):
    train('photos.py')
    for block in blocks_of(PAGE):
        if block.language != 'bash':
            continue
        for command in block.commands:
            _, _, *words = shlex.split(command.replace('epoch_30', 'epoch_1'))
            run_test(' '.join(words))
    with open('predictions.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['label'] for row in rows] == ['cat'] * CATS + ['dog'] * DOGS
    assert rows[0]['path'] == 'data/photos/val/cat/0.JPEG'
