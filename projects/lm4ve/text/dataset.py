"""The entries of data sets of texts: which are left out, and that something is left."""

from collections.abc import Sequence
from typing import Any

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.data.ranks import in_group, state_read_once
from lm4ve.errors import UserError, check


class TextDataset(IntegrityMixin):
    """Files with texts about them; :mod:`lm4ve.data.integrity` treats damaged ones.

    Lists of texts are large: VQAv2's questions need 3.9 GB while they are read. In a
    training with several processes one of each machine reads them, and all map the same
    bytes.
    """

    ranks_share_scan = False

    def full_init(self) -> None:
        """Load the list and scan the files, once a machine."""
        if self._fully_initialized:
            return
        if not in_group():
            super().full_init()
            return
        for name, value in state_read_once(self._read_state).items():
            setattr(self, name, value)

    def _read_state(self) -> dict[str, Any]:
        """Load the list and scan the files; return what is known then.

        The pipeline is each process's own.
        """
        super().full_init()
        state = dict(vars(self))
        del state['pipeline']
        return state

    def check_texts(self, texts: Sequence[str], where: str) -> None:
        """Refuse entries that are no texts, or have half of a character, as JSON may.

        Args:
            texts (Sequence[str]): Texts of an entry.
            where (str): The file and entry, for messages.

        Raises:
            UserError: It names the entry.
        """
        try:
            ''.join(texts).encode()
        except (TypeError, UnicodeEncodeError) as e:
            raise UserError(
                f'{where}: not a text that can be written as UTF-8 ({e}).'
            ) from e

    def refuse_nothing(self, entries: Sequence[object]) -> None:
        """Refuse a data set without an entry.

        Raises:
            UserError: There is none.
        """
        check(
            f"{type(self).__name__}: the entries of '{self.ann_file}'",
            len(entries),
            least=1,
        )
