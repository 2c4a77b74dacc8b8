"""The text that MMEngine writes of a config, into each work folder, reads back as that config."""

import pytest
from mmengine.config import Config, config
from yapf.yapflib import yapf_api

from lm4ve.runner.config import read_config
from tests.helpers.tasks import CONFIG_FILES


@pytest.mark.walk
@pytest.mark.parametrize(
    'path', CONFIG_FILES, ids=lambda p: f'{p.parent.name}/{p.name}'
)
def test_config_is_written_as_text_that_reads_back(path, tmp_path, monkeypatch):
    """With MMEngine's own layout of the text, which other tests do without."""
    monkeypatch.setattr(config, 'FormatCode', yapf_api.FormatCode)
    cfg = read_config(path, set_scope=False)
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == cfg.to_dict()
