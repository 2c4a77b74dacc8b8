"""No tensor is left on the CPU: every config trains and predicts on a simulated GPU."""

import re

import pytest
import torch
from torch import nn

from lm4ve.cost.imagining import ANSWERS, imagined_config
from lm4ve.runner.config import read_config
from lm4ve.tasks import TASKS
from tests.helpers.simulated_gpu import GPU, simulated_gpu, train_and_predict
from tests.helpers.tasks import FOLDERS, ROOT, configs_of

EVERY = [(task, name) for task in TASKS for name in configs_of(task)]
NEEDS = dict(image='mmpretrain', video='mmaction', vision_language='mmpretrain')
#: Models that have run: many configs differ in their data and schedule only, and models of
#: equal parts in other sizes predict by the same code.
_trained: set[str] = set()
_predicted: set[str] = set()


def outline(node, keeps):
    """Return those of a model's fields that a function of name and value keeps, as a text."""
    if isinstance(node, dict):
        pairs = [(k, outline(v, keeps)) for k, v in node.items() if keeps(k, v)]
        return repr([pair for pair in pairs if pair[1] != '[]'])
    if isinstance(node, (list, tuple)):
        return repr([outline(v, keeps) for v in node if keeps('', v)])
    return re.sub(r' at 0x\w+', '', repr(node))


def modules_of(model):
    """Return what decides the modules of a model: not by which values they begin."""
    return outline(model, lambda name, _: name not in ('pretrained', 'seed', 'init_cfg'))


def types_of(model):
    """Return the types of a model's parts, and where they stand."""
    return outline(model, lambda name, value: name == 'type' or isinstance(value, dict))


@pytest.mark.parametrize('task, name', EVERY)
def test_a_config_trains_and_predicts_on_one_device(task, name):
    pytest.importorskip(NEEDS.get(task, 'torch'))
    cfg = imagined_config(read_config(FOLDERS[task] / name))
    modules, types = modules_of(cfg.model), types_of(cfg.model)
    if modules not in _trained:
        train_and_predict(cfg, predicts=types not in _predicted)
        _trained.add(modules)
        _predicted.add(types)


def test_a_tensor_that_is_left_behind_is_found():
    """What `.to()` does not know, as a plain attribute, stays on the CPU."""
    layer = nn.Linear(3, 3)
    layer.table = torch.ones(3)
    x = torch.ones(2, 3, device=GPU)
    layer.to(GPU)
    with simulated_gpu():
        layer(x).sum().backward()
        x[torch.tensor([0])] * torch.tensor(2.0)  # indices and numbers may stay
        with pytest.raises(RuntimeError, match=r'two devices: meta\[2, 3\], cpu\[3\]'):
            layer(x) + layer.table


def test_what_code_is_told_of_values_names_places_that_are_there():
    for file, function in ANSWERS:
        assert f'def {function}(' in (ROOT / 'projects/lm4ve' / file).read_text()
    assert all(reason for _, reason in ANSWERS.values())
