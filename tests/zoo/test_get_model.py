"""mmpretrain builds our image models by name."""

import pytest

import lm4ve  # noqa: F401
from tests.helpers.families import write_huggingface


def test_get_model_builds_ours_by_name(tmp_path):
    mmpretrain = pytest.importorskip('mmpretrain')
    llm = write_huggingface(tmp_path, 'llama')
    neck = dict(block=dict(checkpoint=str(llm), layers=(-1,)))
    model = mmpretrain.get_model('vit-s_llama_in1k', neck=neck)
    assert model.neck.block.source['source'] == str(llm)
    assert model.backbone.embed_dims == model.neck.in_channels == 384
    assert 'vit-s_llama_in1k' in mmpretrain.list_models('*llama*')
