"""Vectors of words (GloVe) and the LSTM over them, the text encoder of SQA3D's baseline.

Any text encoder of ``transformers`` can replace them:
``lm4ve.TransformersTextEncoder``.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lm4ve.errors import UserError
from lm4ve.files import replacing
from lm4ve.registry import MODELS

#: The word of GloVe whose vector stands for unknown ones.
UNKNOWN = 'unk'
_FIELD = 'model.data_preprocessor.word_vectors'


def split_words(text: str) -> list[str]:
    """Split a text as SQA3D's release does: at spaces, "?" and "." being words.

    Further space, also before "?", is an unknown word, as for spaCy's tokenizer. The
    release looks words up as they are written, so that "What" is not GloVe's "what".
    """
    spaced = text.replace('?', ' ?').replace('.', ' .')
    return [word or UNKNOWN for word in re.findall(r'(\S+) ?|\s+', spaced)]


class WordVectors:
    """Looks up vectors of words.

    Args:
        words (Sequence[str]): V words; ``unk`` is among them.
        vectors (np.ndarray): float32 ``[V, D]``.

    Copies share the vectors, so that an average of a model's weights holds no second
    ones.

    Raises:
        UserError, KeyError: There are not as many vectors as words, a number is not
            finite, or there is no ``unk``.
    """

    def __init__(self, words: Sequence[str], vectors: np.ndarray) -> None:
        is_table = vectors.ndim == 2 and len(vectors) == len(words)
        if not is_table or not np.isfinite(vectors).all():
            raise UserError(
                f'{_FIELD} needs a finite row [V, D] for each of {len(words)} words.'
            )
        # The row of each word; of a word that stands twice, the last one.
        self.rows = {word: i for i, word in enumerate(words)}
        self.unknown = self.rows[UNKNOWN]
        self.vectors = np.asarray(vectors, dtype=np.float32)

    def __deepcopy__(self, memo: dict) -> 'WordVectors':
        return self

    def __call__(self, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Look up the words of texts.

        Args:
            texts (Sequence[Sequence[str]]): T lists of words, none of them empty.

        Returns:
            tuple[Tensor, Tensor]: float32 ``[T, L, D]`` with zeros at the ends of
            shorter texts, and bool ``[T, L]``, True = padding.
        """
        found = []
        for words in texts:
            rows = [self.rows.get(word, self.unknown) for word in words]
            found.append(torch.from_numpy(self.vectors[rows]))
        return padded(found)


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join ``[L_i, ...]`` to ``[B, L, ...]``, and return bool ``[B, L]``, True = padding."""
    lengths = [len(row) for row in rows]
    if len(set(lengths)) == 1:
        # One operation, where padding takes one for each row.
        joined = torch.stack(list(rows))
    else:
        joined = pad_sequence(list(rows), batch_first=True)
    ends = torch.tensor(lengths).to(joined.device, non_blocking=True)
    places = torch.arange(joined.shape[1], device=joined.device)
    return joined, places >= ends[:, None]


def read_word_vectors(
    source: str | Path | Mapping[str, Sequence[float]],
) -> WordVectors:
    """Read vectors of words without executing anything of a file.

    Args:
        source (str | Path | Mapping): A ``.npz`` with ``words`` (an array of texts
            ``[V]``) and ``vectors`` (float ``[V, D]``), which is read in seconds;
            GloVe's own ``.txt``, a line a word; or the vectors themselves by their
            words.

    Raises:
        UserError, ValueError, LookupError, OSError: The file is missing, damaged or a
            pickle.
    """
    if isinstance(source, Mapping):
        return WordVectors(
            list(source), np.array(list(source.values()), dtype=np.float32)
        )
    if Path(source).suffix == '.txt':
        return _read_text(Path(source))
    with np.load(source, allow_pickle=False) as archive:
        return WordVectors(archive['words'].tolist(), archive['vectors'])


def _read_text(path: Path, only: Collection[str] | None = None) -> WordVectors:
    """Read GloVe's text file: a word and its numbers a line, with spaces between them.

    Args:
        path (Path): The file.
        only (Collection[str], optional): Keep these words; None keeps all.

    Raises:
        ValueError: The file is cut, has lines of different lengths, or has none of the
            words.
    """
    words = []
    rows = []
    width = 0
    with path.open(encoding='utf-8') as lines:
        for line in lines:
            if not line.endswith('\n'):
                raise ValueError('its last line has no end, so it may be cut')
            if width == 0:  # of the first line, whose word holds no space
                width = line.count(' ')
            # A few words of GloVe's larger files hold spaces themselves.
            word, *numbers = line.rstrip('\n').rsplit(' ', width)
            if only is None or word in only:
                words.append(word)
                rows.append(np.array(numbers, dtype=np.float32))
    return WordVectors(words, np.stack(rows))


def write_word_vectors(
    source: str | Path, texts: Iterable[str], path: str | Path
) -> tuple[int, int]:
    """Write the vectors of the words of some texts, a small file that is read at once.

    Words are kept as they are written and in lower case, so that the file serves both
    values of ``lower_case`` of the preprocessor.

    Args:
        source (str | Path): GloVe's ``.txt``.
        texts (Iterable[str]): Situations and questions.
        path (str | Path): The ``.npz`` to write.

    Returns:
        tuple[int, int]: How many different words the texts have, and how many of them
        have a vector; the others are read as unknown.
    """
    words: set[str] = set()
    for text in texts:
        words.update(split_words(text))
    lower = {word.lower() for word in words}
    found = _read_text(Path(source), words | lower | {UNKNOWN})
    with replacing(path) as beside:
        np.savez(beside, words=np.array(list(found.rows)), vectors=found.vectors)
    return len(words), len(words & found.rows.keys())


@MODELS.register_module()
class LSTMTextEncoder(nn.Module):
    """One LSTM over vectors of words, from the first word to the last.

    Args:
        in_channels (int): D of the vectors.
        channels (int): C.
        dropout (float): Probability of dropping a number of a word's vector.

    Attributes:
        embed_dims (int): C.
    """

    def __init__(
        self, in_channels: int = 300, channels: int = 256, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.embed_dims = channels
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(in_channels, channels, batch_first=True)

    def forward(self, words: Tensor, padding: Tensor) -> Tensor:
        """Encode texts.

        Args:
            words (Tensor): float ``[B, L, D]``.
            padding (Tensor): bool ``[B, L]``, True = padding, at the ends only.

        Returns:
            Tensor: ``[B, L, C]``, zeros at padded places.
        """
        # Padding comes last, so no state of a word has seen it: nothing need be packed,
        # which would wait for the lengths on a GPU.
        out, _ = self.lstm(self.dropout(words))
        return out.masked_fill(padding[..., None], 0.0)
