"""Where a config went that release 0.1.0 moved or folded into another one.

Before, all configs lay in ``configs/lm4ve``, and every language model and every number
of epochs of a sweep had a file of its own.
"""

import re
from pathlib import Path

from lm4ve.zoo import MIM_FOLDER

#: Size of OPT -> the block's dtype.
_OPT = {
    **dict.fromkeys(('125m', '350m'), 'float32'),
    **dict.fromkeys(('1.3b', '2.7b', '6.7b'), 'float16'),
}
#: The piece that the documentation named.
_PIECES = {'ssv2_videomae.py': '_base_/video/ssv2.py'}


def where_it_went(path: str | Path) -> str | None:
    """Say what stands in for a config path that no longer exists.

    Args:
        path (str | Path): What a user typed.

    Returns:
        str: A sentence with the new path and, where the config was folded into another
        one, the overrides that make it the old one; None if no config ever had
        that name.
    """
    path = Path(path)
    name, overrides = _folded(path.name)
    # The checkout that the path lies in, or else what this package carries.
    roots = [p for p in path.parents if p.name == 'configs']
    for folder in (*roots, MIM_FOLDER / 'configs'):
        for new in sorted(folder.rglob('*.py')):
            below = new.relative_to(folder)
            if name in (below.name, below.as_posix()) and new != path:
                if not overrides:
                    return f'{path} moved to {new}.'
                return f'{path} is now {new} --cfg-options {" ".join(overrides)}'
    return None


def _folded(name: str) -> tuple[str, list[str]]:
    """Return the name of the file that an old one went into, and the overrides."""
    if name in _PIECES:
        return _PIECES[name], []
    overrides = []
    if '_100e_' in name:
        name = name.replace('_100e_', '_')
        overrides.append('train_cfg.max_epochs=100')
    opt = re.fullmatch(r'(vit|videomae)-s_opt-(.+)_(in1k|ssv2)\.py', name)
    if opt and opt[2] in _OPT:
        size = opt[2]
        name = f'{opt[1]}-s_llama_{opt[3]}.py'
        overrides += [
            f'model.neck.block.checkpoint=facebook/opt-{size}',
            'model.neck.block.layers="(-1,)"',
            f'model.neck.block.dtype={_OPT[size]}',
        ]
        if size == '350m':
            overrides.append('optim_wrapper.optimizer.lr=2e-4')
    return name, overrides
