"""torch.compile sees a training step of each demo as one graph, but for files listed here."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.shrink import shrinker_of
from tests.helpers.tasks import FOLDERS, ROOT, configs_of

for package in ('mmaction', 'mmpretrain'):
    pytest.importorskip(package)

#: Demos that `make test` traces; the others walk. Variants of a demo have other blocks
#: in the same place.
QUICK = ('pointbert-demo_minilm_primitives.py', 'vit-demo_minilm_digits.py')
#: Task -> the files of hosts that split the graph of its demos. mmsegmentation selects
#: the pixels that have a label, whose number depends on values: for its accuracy, and for
#: the one-hot labels of its binary cross entropy.
OF_HOSTS = {
    'medical': {
        'mmseg/models/losses/accuracy.py',
        'mmseg/models/losses/cross_entropy_loss.py',
    }
}


@pytest.fixture(scope='module')
def graph_breaks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools/dev'))
        import graph_breaks

        yield graph_breaks


def every_demo():
    """Return (task, config) of the demos with a block and without one."""
    rows = []
    for task in FOLDERS:
        for name in configs_of(task):
            if '-demo_minilm' in name or '-demo_none' in name:
                marks = () if name in QUICK else (pytest.mark.walk,)
                rows.append(pytest.param(task, name, id=name, marks=marks))
    return rows


@pytest.mark.parametrize(('task', 'name'), every_demo())
def test_only_listed_files_of_hosts_split_a_training_step(
    graph_breaks, tmp_path, task, name
):
    with pytest.MonkeyPatch.context() as patch:
        shrinker = shrinker_of(task, tmp_path / 'tiny_files')
        shrinker.enter(patch)
        cfg = shrinker.load(name, tmp_path)
        cfg.train_dataloader.drop_last = False
        trace = graph_breaks.trace_config(cfg, real_data=True)
    assert trace.files() == OF_HOSTS.get(task, set())
    if not trace.breaks:
        assert trace.graphs == 1


class ReadsItsLoss(nn.Module):
    """A model of MMEngine's protocol that reads a value between two operations."""

    def data_preprocessor(self, data, training):
        return dict(inputs=data)

    def forward(self, inputs, mode):
        loss = inputs.sum()
        if loss > 0:
            loss = loss * 2
        return dict(loss=loss)

    def parse_losses(self, losses):
        return losses['loss'] + 1, losses


def test_a_value_that_is_read_is_found_with_its_line(graph_breaks):
    trace = graph_breaks.trace_step(ReadsItsLoss(), torch.ones(2))
    assert trace.graphs > 1
    ((place, _),) = trace.breaks
    lines = Path(__file__).read_text(encoding='utf-8').splitlines()
    read = lines.index('        if loss > 0:') + 1
    assert place.endswith(f'tests/tools/test_graph_breaks.py:{read}')
