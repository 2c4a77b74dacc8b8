"""What data sets of texts share, whatever the texts are about: entries that are left out."""

import logging
from collections.abc import Sequence

from mmengine.logging import print_log

from lm4ve.errors import UserError, listing
from lm4ve.tasks.base.integrity import IntegrityMixin


class TextDataset(IntegrityMixin):
    """Files with texts about them; :mod:`lm4ve.tasks.base.integrity` treats damaged ones."""

    def check_texts(self, texts: Sequence[str], where: str) -> None:
        """Refuse texts that no tokenizer reads: with half of a character, as JSON may have.

        Args:
            texts (Sequence[str]): Texts of an entry.
            where (str): The file and entry, for messages.

        Raises:
            UserError: It names the entry.
        """
        try:
            ''.join(texts).encode()
        except UnicodeEncodeError as e:
            raise UserError(
                f'{where}: a text has half of a character ({e.reason}). Fix: correct it.'
            ) from e

    def leave_out(self, what: str, entries: Sequence[object], total: int) -> None:
        """Say how many entries were left out, and which; with 'refuse', raise.

        Args:
            what (str): What they are, for example 'have an empty question'.
            entries (Sequence): What names each of them.
            total (int): How many entries there were.

        Raises:
            UserError: ``on_corrupt='refuse'``.
        """
        if not entries:
            return
        found = (
            f'{type(self).__name__}: {len(entries)} of {total} entries {what}: {listing(entries)}'
        )
        if self.on_corrupt == 'refuse':
            raise UserError(f"{found}. Fix: correct them, or set dataset.on_corrupt='skip'.")
        print_log(f'{found}. They are left out.', logger='current', level=logging.WARNING)

    def refuse_nothing(self, entries: Sequence[object]) -> None:
        """Refuse a data set without an entry.

        Raises:
            UserError: There is none.
        """
        if not entries:
            raise UserError(
                f"{type(self).__name__}: '{self.ann_file}' has no entry that can be used. Fix: "
                'check the file, and what the log says of entries that were left out.'
            )
