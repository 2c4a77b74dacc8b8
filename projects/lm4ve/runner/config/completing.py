"""Complete a config with what our runner makes of its fields, whoever has written it.

Each step changes the config in place, before the runner is built from it.
"""

from mmengine.config import Config, ConfigDict

from lm4ve.runner.config.loading import load_strictly_by_default
from lm4ve.runner.scored_data import set_test_mode

#: Names of MMEngine's default hooks. Its runner accepts None only under these.
_MMENGINES_HOOKS = (
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
)
#: MMEngine's loop -> ours, which resumes exactly.
_EXACT_LOOPS = {
    'EpochBasedTrainLoop': 'lm4ve.EpochLoop',
    'IterBasedTrainLoop': 'lm4ve.IterLoop',
}


def complete_config(cfg: Config) -> list[str]:
    """Resume strictly and exactly, drop hooks set to None, and score every sample.

    Args:
        cfg (Config): Changed in place; it says where the run starts
            (:func:`lm4ve.runner.resume.choose_start`).

    Returns:
        list[str]: The data sets that are scored and did not say so.

    Raises:
        UserError: A data set that is scored has ``test_mode=False``.
    """
    if cfg.get('resume'):
        load_strictly_by_default(cfg)
    _replace_training_loop(cfg)
    _drop_hooks_set_to_none(cfg)
    return set_test_mode(cfg)


def _replace_training_loop(cfg: Config) -> None:
    """Replace one of MMEngine's training loops in a config by ours; leave any other loop.

    A config names MMEngine's loop by ``train_cfg.type`` or by ``train_cfg.by_epoch``.
    """
    loop = dict(cfg.get('train_cfg') or {})
    if 'by_epoch' in loop:
        by_epoch = loop.pop('by_epoch')
        loop.setdefault(
            'type', 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
        )
    loop_type = str(loop.get('type')).removeprefix('mmengine.')
    if loop_type in _EXACT_LOOPS:
        cfg.train_cfg = ConfigDict(loop, type=_EXACT_LOOPS[loop_type])


def _drop_hooks_set_to_none(cfg: Config) -> None:
    """Remove default hooks that a config sets to None, which switches them off.

    MMEngine does so for its own hooks, and fails at None under any other name.
    """
    hooks = cfg.get('default_hooks') or {}
    for name, hook in list(hooks.items()):
        if hook is None and name not in _MMENGINES_HOOKS:
            del hooks[name]
