"""Reading a config: overrides, the scope, and a file that is not there."""

import pytest
from mmengine.registry import DefaultScope

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config


def test_overrides_and_scope(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text("default_scope = 'lm4ve'\nmodel = dict(depth=2)\n")
    before = DefaultScope.get_current_instance()
    read_config(path, set_scope=False)
    assert DefaultScope.get_current_instance() is before
    assert read_config(path, {'model.depth': 3}).model.depth == 3
    assert DefaultScope.get_current_instance().scope_name == 'lm4ve'


def test_missing_file_raises(tmp_path):
    with pytest.raises(UserError, match=r"'.*no\.py' does not exist"):
        read_config(tmp_path / 'no.py')


def test_config_of_missing_host_names_extra(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.config.config.is_installed', lambda name: False)
    path = tmp_path / 'own.py'
    path.write_text("_base_ = 'mmseg::one/of_theirs.py'\n")
    with pytest.raises(UserError, match=r"needs: pip install 'lm4ve\[segmentation\]'"):
        read_config(path)
