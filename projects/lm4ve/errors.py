"""The errors a user can mend: one message with the field, what was found, and the fix.

The command line tools print these without a traceback; everything else is a
bug of ours and keeps its traceback. All of them take a single string, because
MMEngine's registry re-raises a constructor's error as ``type(e)(message)``.
"""


class UserError(ValueError):
    """Something in a config, a file or on the machine needs the user's hand."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, unsafe or not what the config says."""


class UnsupportedModelError(UserError):
    """A language model whose layers cannot serve as a visual encoder layer here."""
