"""Read and write the lists of mutations with their verdicts, and tell what they say."""

import collections
import json
from pathlib import Path


def read_room(folder: Path, room: str) -> dict:
    return json.loads((folder / f'{room}.json').read_text(encoding='utf-8'))


def write_room(folder: Path, room: str, content: dict) -> None:
    """Write a file whole, or leave it as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{room}.json'
    new = path.with_suffix('.new')
    new.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    new.replace(path)


def compare(before: list[dict], now: list[dict]) -> tuple[dict[str, list[str]], bool]:
    """Compare verdicts on the stored list and on the present tree.

    Returns:
        tuple: Title -> a line for each mutation; whether one survives that was caught.
    """
    new = {row['id']: row for row in now}
    lost: list[str] = []
    gone: list[str] = []
    won: list[str] = []
    for row in before:
        was_caught = row['verdict'] == 'caught'
        verdict = new[row['id']]['verdict']
        if verdict == 'gone':
            gone.append(f'{describe(row)}: {new[row["id"]]["note"]}')
        elif was_caught and verdict != 'caught':
            lost.append(f'{describe(row)}: {verdict}')
        elif not was_caught and verdict == 'caught':
            won.append(describe(row))
    lines = {
        'caught before, not caught now': lost,
        'gone': gone,
        'newly caught': won,
    }
    return lines, bool(lost)


def describe(row: dict) -> str:
    change = f'`{row["line"]}` -> `{row["becomes"]}`'
    return f'{row["id"]} {row["file"]} {row["function"]}: {change}'


def table(contents: list[dict]) -> str:
    """Return the counts by room as a table of Markdown."""
    columns = ('caught', 'survived', 'equivalent', 'not covered')
    lines = ['| room | mutations | ' + ' | '.join(columns) + ' |']
    lines.append('|---|' + '---:|' * (len(columns) + 1))
    total: collections.Counter[str] = collections.Counter()
    for content in contents:
        counts: collections.Counter[str] = collections.Counter()
        for row in content['mutations']:
            verdict = row.get('verdict', 'not run')
            if verdict == 'survived' and row.get('note', '').startswith('equivalent'):
                verdict = 'equivalent'
            counts[verdict] += 1
        counts['mutations'] = len(content['mutations'])
        total += counts
        lines.append(_line(content['room'], counts, columns))
    lines.append(_line('all', total, columns))
    return '\n'.join(lines)


def _line(name: str, counts: collections.Counter[str], columns: tuple[str, ...]) -> str:
    cells = [name, str(counts['mutations'])]
    cells += [str(counts[column]) for column in columns]
    return '| ' + ' | '.join(cells) + ' |'


def survivors(contents: list[dict]) -> str:
    """Return a list in Markdown of what no test caught, without the equivalent ones."""
    lines = []
    for content in contents:
        for row in content['mutations']:
            is_equivalent = row.get('note', '').startswith('equivalent')
            if row.get('verdict') in ('survived', 'not covered') and not is_equivalent:
                note = f'; {row["note"]}' if row.get('note') else ''
                where = f'{row["id"]}, `{row["file"]}`, `{row["function"]}`'
                change = f'`{row["line"]}` becomes `{row["becomes"]}`'
                lines.append(f'- {where}: {change} ({row["verdict"]}{note})')
    return '\n'.join(lines)
