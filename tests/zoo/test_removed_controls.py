"""A removed control is read as its config and option; the paper's controls equal theirs."""

import pytest
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.zoo import all_models
from lm4ve.zoo.removed_controls import REMOVED_CONTROLS
from tests.helpers.tasks import CONFIGS

RANDOM_TRAINED = {
    'model.neck.block.pretrained': False,
    'model.neck.block.trainable': 'all',
    'model.neck.block.dtype': 'float32',
}
MLP = {'model.neck.block': dict(_delete_=True, type='MLPBlock', embed_dims=4096)}
#: Controls of the paper's tables, which are files.
FILES = sorted(
    name for name in all_models() if '_mlp' in name or '-randinit-trained' in name
)


@pytest.mark.parametrize('name', REMOVED_CONTROLS)
def test_removed_control_is_its_config_and_option(name):
    parent, option = REMOVED_CONTROLS[name]
    assert name not in all_models()
    read = read_config(f'configs/any/{name}.py').to_dict()
    assert read == read_config(parent, option).to_dict()


def test_override_wins_over_the_option_of_a_removed_control():
    options = {'model.neck.block.pretrained': True}
    cfg = read_config('vit-demo_randinit-frozen_digits', options)
    assert cfg.model.neck.block.pretrained is True


def test_inheriting_a_removed_control_names_the_config_to_inherit(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text("_base_ = 'lm4ve::lm4ve/vit-demo_mlp_digits.py'\n")
    with pytest.raises(UserError, match='vit-demo_minilm_digits'):
        Config.fromfile(child)


@pytest.mark.parametrize('name', FILES)
def test_control_of_a_table_is_its_config_and_an_option(name):
    """So a grid, which uses the option, trains what the file trains."""
    if '_mlp' in name:
        parent, option = name.replace('_mlp', '_llama'), MLP
    else:
        parent, option = name.replace('-randinit-trained', ''), RANDOM_TRAINED
    assert read_config(name).to_dict() == read_config(parent, option).to_dict()


def test_tables_have_controls():
    assert len(FILES) == 16
    assert (CONFIGS / 'lm4ve/vit-s_mlp_in1k.py').is_file()
