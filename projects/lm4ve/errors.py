"""The errors a user can mend: one message with the field, what was found, and the fix.

The command line tools print these without a traceback; everything else is a
bug of ours and keeps its traceback. All of them take a single string, because
MMEngine's registry re-raises a constructor's error as ``type(e)(message)``.
"""

from collections.abc import Collection


class UserError(ValueError):
    """Something in a config, a file or on the machine needs the user's hand."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, unsafe or not what the config says."""


class UnsupportedModelError(UserError):
    """A language model whose layers cannot serve as a visual encoder layer here."""


def check_choice(field: str, value: object, allowed: Collection[object]) -> None:
    """Refuse a field of a config whose value is none of the allowed ones.

    Raises:
        UserError: It names the field, the value and what is allowed.
    """
    if value not in allowed:
        raise UserError(f'{field}={value!r} must be one of {", ".join(map(str, allowed))}.')
