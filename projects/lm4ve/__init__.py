"""Frozen transformer blocks of language models as visual encoder layers.

Importing this package registers blocks and necks with MMEngine and makes
``lm4ve::`` configs known; hosts that are not installed are passed over.
"""
from mmengine.config.utils import MODULE2PACKAGE

from lm4ve import blocks, engine, necks  # noqa: F401  (they register)
from lm4ve.hosts import connect_installed_hosts
from lm4ve.version import __version__  # noqa: F401

# `_base_ = 'lm4ve::...'` looks for `.mim/configs` in the folder of a *module*
# when no distribution has this name. The subpackage is found in an editable
# install and in a wheel; the name `lm4ve` alone is not (the distribution's
# location says nothing of where an editable install keeps its code).
MODULE2PACKAGE.setdefault('lm4ve', 'lm4ve.zoo')
connect_installed_hosts()
