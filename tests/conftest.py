"""What every test gets: one thread, and no word to any network."""

import functools
import os

import pytest

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope='session', autouse=True)
def metafiles_are_read_once():
    """MMEngine reads all of mmpretrain's for every config that inherits one from there."""
    from mmengine.config import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', functools.cache(utils.load))
        yield


@pytest.fixture(autouse=True)
def no_scope_left_over():
    """A Runner sets MMEngine's default scope for good; not beyond its test."""
    from mmengine.registry import DefaultScope

    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory):
    """``checkpoints(variant, **options)``: a Hugging Face folder, written once.

    Takes what :func:`tests.helpers.families.write_huggingface` takes; returns a str.
    """
    from tests.helpers.families import write_huggingface

    written = {}

    def get(variant: str, **options) -> str:
        key = variant, tuple(sorted((k, str(v)) for k, v in options.items()))
        if key not in written:
            folder = tmp_path_factory.mktemp(variant)
            written[key] = str(write_huggingface(folder, variant, **options))
        return written[key]

    return get
