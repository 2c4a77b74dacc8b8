"""The type in which heads are multiplied: chosen once for a set of tokens, then kept.

Products in bfloat16, of trained weights in float32, take half the time where a processor computes
them, and more time where it only imitates them. Trainings in different types are
different trainings, so a cache of tokens records the type of its first study. Later
ones use it, on whatever machine.
"""

from pathlib import Path

from lm4ve.blocks.auto_dtype import computes_bfloat16
from lm4ve.errors import UserError
from lm4ve.files import read_json, write_json
from lm4ve.runner.devices import find_device

#: Names that ``--dtype`` takes beside 'auto'.
DTYPES = ('float32', 'bfloat16')
RECORD = 'precision.json'


def choose_dtype(wish: str, folder: Path) -> str:
    """Return the type of products in all trainings of a study, and record it.

    Args:
        wish (str): 'float32' or 'bfloat16'; 'auto': the recorded type, or the faster one
            of this machine.
        folder (Path): Where the tokens lie.

    Raises:
        UserError: The first study of these tokens has recorded another type than the
            wish.
    """
    record = read_json(folder / RECORD)
    if isinstance(record, dict) and record.get('dtype') in DTYPES:
        recorded = str(record['dtype'])
        if wish not in ('auto', recorded):
            raise UserError(
                f'--dtype {wish}: the first study of the tokens in {folder} chose '
                f'{recorded}, which all others keep. Fix: --dtype {recorded}, or another '
                '--cache.'
            )
        return recorded
    dtype = wish
    if wish == 'auto':
        device = find_device(None).type
        dtype = 'bfloat16' if computes_bfloat16(device) else 'float32'
    write_json(dict(dtype=dtype), folder / RECORD)
    return dtype
