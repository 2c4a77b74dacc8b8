"""Select the tests of a mutation: those that enter its function, the shortest first."""

import collections


class Recording:
    """What the tests of a room enter, and how long they take.

    Args:
        parts (list[dict]): Of its folders: see :func:`mutating.recording.record`.
    """

    def __init__(self, parts: list[dict]) -> None:
        self.seconds: dict[str, float] = {}
        self._cpu: dict[str, float] = {}
        self._fixtures: dict[str, list[str]] = {}
        self._tests_of: dict[str, set[str]] = collections.defaultdict(set)
        self._imported: set[str] = set()
        self.failed: list[str] = []
        for part in parts:
            self._add(part)

    def _add(self, part: dict) -> None:
        functions = part['functions']
        self._imported |= {functions[number] for number in part['imports']}
        for name, fixture in part['fixtures'].items():
            self._cpu[name] = fixture['cpu']
        for test, row in part['tests'].items():
            if not row['passed']:
                self.failed.append(test)
                continue
            fixtures = [
                part['fixtures'][name]
                for name in row['fixtures']
                if name in part['fixtures']
            ]
            self._cpu[test] = row['cpu']
            self._fixtures[test] = row['fixtures']
            self.seconds[test] = row['wall'] + sum(f['wall'] for f in fixtures)
            for source in (row, *fixtures):
                for number in source['entered']:
                    self._tests_of[functions[number]].add(test)

    def select(self, file: str, function: str, seconds: float) -> list[str]:
        """Return the tests that enter a function, the shortest of them, by their files.

        What is entered when a module is imported concerns every test.
        """
        name = f'{file}::{function}'
        tests = self._tests_of.get(name, set())
        if name in self._imported:
            tests = tests | set(self._fixtures)
        left = seconds
        chosen = []
        made: set[str] = set()
        for test in sorted(tests, key=lambda test: (self._cost(test, set()), test)):
            cost = self._cost(test, made)
            if cost <= left or not chosen:
                left -= cost
                chosen.append(test)
                made.update(self._fixtures[test])
        of_file: dict[str, float] = collections.Counter()
        for test in chosen:
            of_file[test.partition('::')[0]] += self._cpu[test]
        # A file at a time, or the fixtures of its module would be made again and again.
        return sorted(
            chosen,
            key=lambda test: (
                of_file[test.partition('::')[0]],
                test.partition('::')[0],
                self._cpu[test],
                test,
            ),
        )

    def _cost(self, test: str, made: set[str]) -> float:
        fixtures = [name for name in self._fixtures[test] if name not in made]
        return self._cpu[test] + sum(self._cpu.get(name, 0.0) for name in fixtures)
