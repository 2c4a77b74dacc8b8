"""rich's console for the tables of the commands; only the extras that print tables have rich."""

from typing import NoReturn

import rich.console


class Console(rich.console.Console):
    """rich's ``Console``, which leaves a closed output to :mod:`lm4ve.runner.pipes`."""

    def on_broken_pipe(self) -> NoReturn:
        """Pass the error on; rich would end the process with an exit code of its own.

        Raises:
            BrokenPipeError: Always.
        """
        raise BrokenPipeError(f'The reader of {self.file.name} is gone.')
