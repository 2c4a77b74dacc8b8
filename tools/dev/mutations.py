"""Mutate the library at random places, and see whether the tests of the room fail.

    python tools/dev/mutations.py --draw 0          # draw a list, by a seed
    python tools/dev/mutations.py --run             # run those that have no verdict yet
    python tools/dev/mutations.py --compare         # the stored list on the present tree
    python tools/dev/mutations.py --table           # what the stored results say

A mutation changes one operator, constant, comparison, condition or early exit of one
function. It is run against the tests of its room that enter the function, the shortest
first, as long as their CPU time sums up to at most three minutes; it is caught if one
fails. Which test enters which function, and how long it takes, is recorded on the tree at
hand. Tests marked slow run only where no other enters the function.

List and verdicts are in ``docs/results/mutations``, a file for each room. ``--compare``
exits with 1 if a mutation survives that was caught before; one whose function or line is
gone is named. All that is read again after an interruption is in ``work_dirs/mutations``.

mutmut and cosmic-ray draw no seeded sample, name a mutation by its place in the file, and
start a new interpreter for each, which here imports for ten seconds: hence our own.
"""

import argparse
import fnmatch
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from mutating.rooms import ROOMS
from mutating.running import files_of
from mutating.session import Session
from mutating.sources import Place, draw, locate, mutated_line, read_sources
from mutating.stored import compare, read_room, survivors, table, write_room

STORED = 'docs/results/mutations'
MUTATIONS_OF_ROOM = 30
#: CPU seconds of the tests that a mutation is run against, at most.
SECONDS = 180.0


def draw_rooms(checkout: Path, rooms: list[str], count: int, seed: int) -> None:
    """Draw and store the list of each room, without verdicts."""
    sources = read_sources(checkout / 'projects/lm4ve')
    command = ['git', 'rev-parse', 'HEAD']
    commit = subprocess.run(command, cwd=checkout, capture_output=True, check=True)
    for room in rooms:
        patterns = ROOMS[room][0]

        def is_in_room(file: str, patterns: tuple[str, ...] = patterns) -> bool:
            return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)

        rows = []
        drawn = draw(sources, is_in_room, count, f'{seed} {room}')
        for number, mutation in enumerate(drawn):
            row = dict(id=f'{room}-{number:02}', **asdict(mutation))
            place = locate(mutation, sources)
            assert isinstance(place, Place)
            row['becomes'] = mutated_line(sources[mutation.file], place)
            rows.append(row)
        head = dict(room=room, seed=seed, commit=commit.stdout.decode().strip())
        write_room(checkout / STORED, room, dict(**head, mutations=rows))


def name_of_tree(checkout: Path) -> str:
    """Return a hash of all that a verdict depends on."""
    content = hashlib.sha256()
    for name in files_of(checkout):
        if name.startswith(('projects/', 'tests/', 'configs/', 'tools/')):
            content.update(f'{name}\0'.encode())
            if (checkout / name).is_file():
                content.update((checkout / name).read_bytes())
    return content.hexdigest()[:12]


def run_rooms(
    session: Session,
    rooms: list[str],
    stored: Path,
    results: Path,
    seconds: float | None,
) -> None:
    """Run what has no verdict yet, and write each verdict as it comes.

    Args:
        session (Session): Of the tree.
        rooms (list[str]): Which.
        stored (Path): The folder of the lists.
        results (Path): The folder of the lists with verdicts; may be the same.
        seconds (float, optional): See :data:`SECONDS`; None: as stored.
    """
    for room in rooms:
        if results == stored or (results / f'{room}.json').exists():
            content = read_room(results, room)
        else:
            content = read_room(stored, room)
            for row in content['mutations']:
                for name in ('verdict', 'killed_by', 'tests', 'note'):
                    row.pop(name, None)
        content['seconds'] = seconds or content.get('seconds', SECONDS)
        rows = {row['id']: row for row in content['mutations']}
        left = [row for row in rows.values() if 'verdict' not in row]
        if not left:
            continue
        session.left_out = set(content.get('left_out', []))
        for row in session.verdicts(room, left, content['seconds']):
            rows[row['id']] = row
            content['left_out'] = sorted(session.left_out)
            content['mutations'] = list(rows.values())
            write_room(results, room, content)
            now = time.strftime('%H:%M:%S')
            print(now, row['id'], row['verdict'], row['killed_by'], flush=True)


def main(argv: list[str] | None = None) -> int:
    """Do what the flags say; return 1 if a mutation survives that was caught before."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--draw', type=int, metavar='SEED')
    what.add_argument('--run', action='store_true')
    what.add_argument('--compare', action='store_true')
    what.add_argument('--table', action='store_true')
    add('--rooms', nargs='+', choices=list(ROOMS), default=list(ROOMS), metavar='ROOM')
    add('--count', type=int, default=MUTATIONS_OF_ROOM, help='drawn for each room')
    add('--seconds', type=float, help='CPU seconds of the tests of a mutation, at most')
    add('--jobs', type=int, default=1, help='mutations at the same time')
    add('--work', type=Path, help='recordings and outputs (default: by the tree)')
    add('--checkout', type=Path, default=Path(__file__).resolve().parents[2])
    args = parser.parse_args(argv)
    stored = args.checkout / STORED
    if args.draw is not None:
        draw_rooms(args.checkout, args.rooms, args.count, args.draw)
        return 0
    if args.table:
        contents = [read_room(stored, room) for room in args.rooms]
        print(table(contents), survivors(contents), sep='\n\n')
        return 0
    by_tree = args.checkout / 'work_dirs/mutations' / name_of_tree(args.checkout)
    work = args.work or by_tree
    work.mkdir(parents=True, exist_ok=True)
    print(f'recordings and outputs: {work}', flush=True)
    results = work / 'results' if args.compare else stored
    os.nice(10)
    # As an interrupt by the keyboard: the copies of the tree are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    session = Session(args.checkout, work, args.jobs)
    try:
        run_rooms(session, args.rooms, stored, results, args.seconds)
    finally:
        session.close()
    if not args.compare:
        return 0
    is_worse = False
    for room in args.rooms:
        before = read_room(stored, room)['mutations']
        lines, room_is_worse = compare(before, read_room(results, room)['mutations'])
        is_worse = is_worse or room_is_worse
        for title, names in lines.items():
            print(f'{room}: {len(names)} {title}')
            for name in names:
                print(f'  {name}')
    return 1 if is_worse else 0


if __name__ == '__main__':
    sys.exit(main())
