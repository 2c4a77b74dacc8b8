"""What a config of MMEngine, mmpretrain, mmaction2 or another OpenMMLab framework imports.

    custom_imports = dict(imports=['lm4ve.openmmlab'])

It makes the types of lm4ve known, as ``import lm4ve`` does, and lets the repairs of these
frameworks act before anything of the config is built: mmaction2's wheel cannot be imported
without them. A script that builds their models without a config file imports it, too.
"""

from lm4ve import compat

compat.activate()
