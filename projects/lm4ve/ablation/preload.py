"""What the fork server imports once for all trials: the hosts that configs name.

Importing this module imports the hosts; :data:`lm4ve.ablation.trial.SCOPES` names them.
"""

import contextlib
import importlib
import os

from mmengine import registry as root
from mmengine.registry import Registry

from lm4ve.ablation.trial import SCOPES


def import_scope(scope: str) -> None:
    """Import every module that a scope registers, as building from a config does it.

    What cannot be imported is left to the trial that needs it.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module(f'{scope}.registry')
    for registry in list(vars(root).values()):
        if isinstance(registry, Registry):
            for name in {scope, 'lm4ve'} & set(registry.children):
                with contextlib.suppress(ImportError):
                    registry.children[name].import_from_location()


for _scope in filter(None, os.environ.get(SCOPES, '').split(',')):
    import_scope(_scope)
