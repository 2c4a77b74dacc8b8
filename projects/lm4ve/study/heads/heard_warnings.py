"""Keeps what a study warns of, so that its report can say it again.

Data and encoder warn on the console, long before the report is written, of pictures that are
left out, say. Who gets the report by mail has not seen the console.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Listener(logging.Handler):
    """Appends each warning that a logger gets to a list, once.

    Args:
        messages (list[str]): The list.
    """

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record's message."""
        message = record.getMessage()
        if message not in self.messages:
            self.messages.append(message)


@contextmanager
def hear_warnings(logger: logging.Logger) -> Iterator[list[str]]:
    """Yield a list that gets the logger's warnings until the end of the block.

    Args:
        logger (logging.Logger): It logs them as before.
    """
    messages: list[str] = []
    listener = _Listener(messages)
    logger.addHandler(listener)
    try:
        yield messages
    finally:
        logger.removeHandler(listener)
