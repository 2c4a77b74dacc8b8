"""mmpretrain's hub of models takes no entry that another package brings.

True of mmpretrain 1.2.0 (no upstream issue): ``ModelHub.register_model_index`` adds
every model of an index, also those of tasks that mmpretrain cannot build, and has no
way to take one out. So entries are removed from its private table. May go once
mmpretrain has a public way to register single models.
"""

from types import ModuleType

from lm4ve.zoo import MIM_FOLDER


def is_needed(model: ModuleType) -> bool:
    """Return whether the private table is still the only way."""
    return hasattr(model.ModelHub, '_models_dict')


def repair(model: ModuleType) -> None:
    """Make our image models known to ``mmpretrain.get_model``.

    Args:
        model (ModuleType): ``mmpretrain.apis.model``.
    """
    hub = model.ModelHub
    if not is_needed(model):
        return  # another version's hub: get_model still takes config paths
    before = set(hub._models_dict)
    hub.register_model_index(MIM_FOLDER / 'model-index.yml', config_prefix=MIM_FOLDER)
    for name in set(hub._models_dict) - before:
        tasks = {r.task for r in hub._models_dict[name].results or ()}
        if 'Image Classification' not in tasks:
            del hub._models_dict[name]
