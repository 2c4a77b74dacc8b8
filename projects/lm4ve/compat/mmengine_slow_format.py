"""Let MMEngine format the text of a config once instead of five times."""

from functools import lru_cache
from typing import Any


def format_once(config: Any) -> None:
    """Cache the texts that yapf has formatted for MMEngine's configs.

    Slow in MMEngine 0.10.7 (no upstream issue): when a training starts, the runner, a
    hook and two visualizers read ``Config.pretty_text``, and each time yapf's
    ``FormatCode`` takes a tenth of a second for the same text. May go once MMEngine
    keeps the formatted text.

    Args:
        config (ModuleType): ``mmengine.config.config``, which has imported
            ``FormatCode``.
    """
    format_code = config.FormatCode

    # A cache needs hashable arguments, so it gets the items of dicts as tuples.
    @lru_cache(maxsize=8)
    def cached(text: str, style: tuple, options: tuple) -> Any:
        return format_code(text, style_config=dict(style), **dict(options))

    def format_code_once(text: str, style_config: dict, **options: Any) -> Any:
        return cached(text, tuple(style_config.items()), tuple(options.items()))

    config.FormatCode = format_code_once
