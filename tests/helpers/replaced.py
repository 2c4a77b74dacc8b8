"""What the tests replace when they run a shipped config: six kinds of things, and no others.

What a test replaces is not tested. So a config keeps every class, hub id, address and
path, and :func:`differences` finds what a shrunk config changed beyond this list:

1. **The hub's answer.** A hub id leads to a tiny repository in a cache, as
   huggingface_hub keeps it (:mod:`tests.helpers.hub`). Its library and transformers
   read it without a network.
2. **The answer of an address.** Weights at ``https://...`` or ``torchvision://...`` lie
   in the cache of torch.hub, as if they had been downloaded.
3. **The content of files.** A path that a config names, of data or weights, is a tiny
   file of the real format, at that path below the working folder. So is the package of
   pictures that a demo reads.
4. **Sizes.** Widths, depths, sizes of images, clouds and batches, numbers of samples
   and epochs: numbers, given as arguments to the same classes.
5. **MMEngine's own overhead.** A config file is read once, its text is not laid out,
   and no garbage is collected for each data set (:mod:`tests.helpers.quick_mmengine`).
6. **A block's dtype 'auto'.** It would be bfloat16 on some CPUs and float32 on others, so
   that results would depend on the machine; here it is float32.
"""

from collections.abc import Iterator
from typing import Any

#: What a user gives on the command line, and what `lm4ve train` and `test` themselves
#: set.
OPTIONS = {
    'work_dir',
    'launcher',
    'log_level',
    'resume',
    'filename',
    'num_workers',
    'persistent_workers',
    'pin_memory',
    'collate_fn',
}
#: Sizes that have a name in the place of numbers.
NAMED_SIZES = {'arch', 'corruptions'}


def differences(whole: Any, small: Any, place: str = '') -> Iterator[str]:
    """Yield what a shrunk config changed beyond sizes.

    Args:
        whole, small (Any): The config as it is shipped, and shrunk, as plain data.
        place (str): Their place in the config.
    """
    key = place.rpartition('.')[2]
    if key in OPTIONS or key in NAMED_SIZES:
        return
    if is_number(whole) and is_number(small):
        return
    if key == 'dtype' and (whole, small) == ('auto', 'float32'):
        return
    if isinstance(whole, dict) and isinstance(small, dict):
        yield from _differences_of_dicts(whole, small, place)
    elif is_list(whole) and is_list(small) and len(whole) == len(small):
        for i, pair in enumerate(zip(whole, small, strict=True)):
            yield from differences(*pair, f'{place}.{i}')
    elif whole != small:
        yield f'{place}: {whole!r} became {small!r}'


def _differences_of_dicts(whole: dict, small: dict, place: str) -> Iterator[str]:
    for name in whole:
        if name in small:
            yield from differences(whole[name], small[name], f'{place}.{name}')
        elif name not in OPTIONS:
            yield f'{place}.{name} is gone'
    for name in small.keys() - whole.keys() - OPTIONS - NAMED_SIZES:
        if not is_number(small[name]):
            yield f'{place}.{name} is new: {small[name]!r}'


def is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def is_number(value: Any) -> bool:
    """Return whether a value consists of numbers; a truth value is none."""
    if isinstance(value, dict):
        return all(is_number(entry) for entry in value.values())
    if is_list(value):
        return all(is_number(entry) for entry in value)
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float))
