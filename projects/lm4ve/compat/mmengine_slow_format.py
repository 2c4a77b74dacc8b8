"""MMEngine formats the same config again and again."""

from functools import lru_cache
from typing import Any


def format_once(config: Any) -> None:
    """MMEngine formats the same text of a config five times when a training starts.

    True of MMEngine 0.10.7 (no upstream issue): the runner, a hook and two visualizers
    read ``Config.pretty_text``, for which yapf takes a tenth of a second. May go once
    it is kept.
    """
    format_code = config.FormatCode

    # A cache needs arguments that hash: tuples in the place of dicts.
    @lru_cache(maxsize=8)
    def cached(text: str, style: tuple, options: tuple) -> Any:
        return format_code(text, style_config=dict(style), **dict(options))

    def format_code_once(text: str, style_config: dict, **options: Any) -> Any:
        return cached(text, tuple(style_config.items()), tuple(options.items()))

    config.FormatCode = format_code_once
