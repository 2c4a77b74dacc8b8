"""Models of several modalities, of which the text part's layers are used."""

WRAPPERS: tuple[str, ...] = ()
