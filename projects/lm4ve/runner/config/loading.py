"""How a run loads its checkpoint: whole, or not at all, unless a flag says otherwise."""

from typing import Any

from mmengine.config import Config, ConfigDict

from lm4ve.zoo import find_checkpoint


def evaluate_checkpoint(
    cfg: Config, checkpoint: str, allow_partial: bool, strict_config: bool = False
) -> None:
    """Make a config's runner evaluate a checkpoint, all of it unless ``allow_partial``.

    Args:
        cfg (Config): Changed in place.
        checkpoint (str): A file, or ``'pretrained'`` for the weights that come with the
            config.
        allow_partial (bool): Load what fits and log the rest.
        strict_config (bool): Refuse a checkpoint that was trained otherwise.
    """
    cfg.load_from = str(find_checkpoint(checkpoint, cfg.filename))
    cfg.resume = False
    set_strict_loading(cfg, allow_partial=allow_partial, strict_config=strict_config)


def set_strict_loading(cfg: Config, **options: Any) -> None:
    """Add the hook for strict loading to a config, or replace the one that it has.

    Args:
        cfg (Config): Changed in place.
        **options: Arguments of
            :class:`lm4ve.runner.checkpoint_hooks.WholeCheckpointHook`.
    """
    cfg.setdefault('default_hooks', ConfigDict())
    cfg.default_hooks.whole_checkpoint = ConfigDict(
        type='lm4ve.WholeCheckpointHook', **options
    )


def load_strictly_by_default(cfg: Config) -> None:
    """Add the hook for strict loading to a config, unless it has the hook already."""
    hooks = [
        *(cfg.get('default_hooks') or {}).values(),
        *(cfg.get('custom_hooks') or ()),
    ]
    for hook in hooks:
        if not isinstance(hook, dict):
            continue
        if str(hook.get('type')).rpartition('.')[2] == 'WholeCheckpointHook':
            return
    set_strict_loading(cfg)
