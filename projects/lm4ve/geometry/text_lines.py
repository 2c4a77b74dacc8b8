"""Lines of text files of numbers, which are refused if the last one may be cut."""


def text_lines(data: bytes) -> list[str]:
    """Return the lines of a text, without comments and empty ones.

    Raises:
        ValueError: The last line has no end, so its last number may be cut.
    """
    check_last_line(data)
    lines = (line.partition(b'#')[0].strip() for line in data.splitlines())
    return [line.decode('latin-1') for line in lines if line]


def check_last_line(data: bytes) -> None:
    """Refuse a text whose last line has no end, since its last number may be cut.

    Raises:
        ValueError: The last line has no end.
    """
    if data.strip() and not data.rstrip(b' \t').endswith((b'\n', b'\r')):
        raise ValueError(
            'its last line has no end, so it may be cut (if it is whole: sed -i "$a\\" FILE)'
        )
