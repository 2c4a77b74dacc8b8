"""MMEngine without its own overhead, which would be two thirds of a tiny run."""

import copy
import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

from mmengine.config import config, utils
from mmengine.dataset import base_dataset
from yapf.yapflib import yapf_api


def quicken(replace: Callable = setattr) -> None:
    """Let MMEngine read files once, lay out no text and collect no garbage.

    It reads all of mmpretrain's metafiles for every config that inherits one from
    there, and each config anew; lays out the config for each log and checkpoint; and
    collects garbage for each data set.

    Args:
        replace (Callable): Sets an attribute, as :func:`setattr` or pytest's
            monkeypatch.
    """
    replace(utils, 'load', functools.cache(utils.load))
    replace(
        config.Config, '_file2dict', staticmethod(_read_once(config.Config._file2dict))
    )
    replace(formatter(), 'FormatCode', lambda text, **_: (text, False))
    replace(base_dataset, 'gc', SimpleNamespace(collect=lambda: 0))


def formatter() -> ModuleType:
    """Return the module from which MMEngine takes yapf's ``FormatCode``: its own, or yapf's."""
    return config if hasattr(config, 'FormatCode') else yapf_api


def _read_once(read: Callable) -> Callable:
    """Make of ``Config._file2dict`` one that reads configs of ours and of hosts once.

    A config takes 30 to 100 ms. A test's own may change and is read each time; what it
    inherits from here is not.
    """
    read_once = functools.cache(read)
    root = Path(__file__).parents[2]
    ours = (f'{root}/configs/', f'{root}/projects/llm4seg/configs/')

    @functools.wraps(read)
    def file2dict(filename, *args, **options):
        path = os.path.abspath(os.path.expanduser(filename))
        if not path.startswith(ours) and '/.mim/configs/' not in path:
            return read(path, *args, **options)
        return copy.deepcopy(read_once(path, *args, **options))

    return file2dict
