"""Lines of text files of numbers, which are refused if the last one may be cut."""


def text_lines(data: bytes) -> list[str]:
    """Return the lines of a text, without comments and empty ones.

    Raises:
        ValueError: The last line has no end, so its last number may be cut.
    """
    check_last_line(data)
    lines = []
    for line in data.splitlines():
        content = line.partition(b'#')[0].strip()
        if content:
            lines.append(content.decode('latin-1'))
    return lines


def check_last_line(data: bytes) -> None:
    """Refuse a text whose last line has no end, since its last number may be cut.

    Raises:
        ValueError: The last line has no end.
    """
    is_empty = not data.strip()
    has_end = data.rstrip(b' \t').endswith((b'\n', b'\r'))
    if not is_empty and not has_end:
        raise ValueError(
            'its last line has no end, so it may be cut (if it is whole: sed -i "$a\\" FILE)'
        )
