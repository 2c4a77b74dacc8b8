"""Stores the tokens of many pictures in one file that stays readable if a run is killed.

A batch is written before the record counts it, so that a kill loses one batch. What the
record counts is compared with its checksums whenever the file is opened.
"""

import math
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lm4ve.files import read_json, write_json

TOKENS = 'tokens.f16'
RECORD = 'progress.json'


@dataclass
class TokenFile:
    """Token rows in float16, one batch after the other.

    A token row holds the N x C values of one input of the encoder.

    Attributes:
        folder (Path): Holds the tokens and the record.
        shape (list[int]): N and C; empty before anything is written.
        batches (list[list[int]]): Token rows and checksum of each batch that is whole.
    """

    folder: Path
    shape: list[int] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)

    @property
    def token_rows(self) -> int:
        """How many token rows are whole."""
        return sum(rows for rows, _ in self.batches)

    @property
    def token_row_bytes(self) -> int:
        """The bytes of a token row."""
        return 2 * math.prod(self.shape)

    def append(self, file: BinaryIO, batch: np.ndarray) -> None:
        """Write a batch, then count it.

        Args:
            file (BinaryIO): The file of tokens, at its end.
            batch (np.ndarray): float16 ``[B, N, C]``.
        """
        content = batch.tobytes()
        file.write(content)
        file.flush()
        self.batches.append([len(batch), zlib.crc32(content)])
        record = dict(shape=self.shape, batches=self.batches)
        write_json(record, self.folder / RECORD)


def open_token_file(folder: Path) -> TokenFile:
    """Open the tokens that are on the disk and whole.

    Args:
        folder (Path): The folder of the tokens and the record.

    Returns:
        TokenFile: With the batches up to the first that is damaged or cut; without any
        if the record is missing or damaged.
    """
    record = read_json(folder / RECORD)
    if not _is_record(record):
        return TokenFile(folder)
    opened = TokenFile(folder, record['shape'])
    with suppress(OSError), open(folder / TOKENS, 'rb') as file:
        bytes_left = file.seek(0, os.SEEK_END)
        file.seek(0)
        for rows, checksum in record['batches']:
            size = rows * opened.token_row_bytes
            bytes_left -= size
            if bytes_left < 0:
                break
            if zlib.crc32(file.read(size)) != checksum:
                break
            opened.batches.append([rows, checksum])
    return opened


def _is_record(value: Any) -> bool:
    """Return whether a value from a JSON file has the form of a record.

    That is a dict with 'shape', N and C, both at least 1; and 'batches', a list of [token
    rows, checksum], each with at least one token row.
    """
    if not isinstance(value, dict) or 'shape' not in value or 'batches' not in value:
        return False
    if not _is_pair(value['shape'], least=1):
        return False
    batches = value['batches']
    if not isinstance(batches, list):
        return False
    for batch in batches:
        if not _is_pair(batch, least=0):
            return False
        rows, _ = batch
        if rows == 0:
            return False
    return True


def _is_pair(value: Any, least: int) -> bool:
    """Return whether a value is a list of exactly two integers of at least ``least``."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(type(number) is int and number >= least for number in value)
