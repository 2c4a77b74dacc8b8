"""Run tests in a given order, or all of them, and log each with the CPU time it took."""

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

#: The variable of the environment with the test, or the shared fixture, that runs.
RUNNING = 'LM4VE_MUTATIONS_RUNNING'


def cpu_seconds(pid: int | None = None) -> float:
    """Return the CPU time of a process, or of this one, and of all that it started."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            total += sum(one.cpu_times()[:4])
        except psutil.Error:  # it has ended, and its time is in its parent's
            continue
    return total


class Plugin:
    """A plugin of pytest.

    Args:
        log (Path): Gets a line of JSON as each test starts and ends.
        tests (list[str], optional): The ids of the tests to run, in this order; all if
            None.
    """

    def __init__(self, log: Path, tests: list[str] | None) -> None:
        self._log = log.open('a', encoding='utf-8', buffering=1)
        self._tests = tests
        self._failed: set[str] = set()
        self._of_fixtures = (0.0, 0.0)

    def _write(self, **fields: Any) -> None:
        self._log.write(json.dumps(fields) + '\n')

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # After marks have deselected some: hence last.
        if self._tests is None:
            self._write(event='collected', tests=[item.nodeid for item in items])
            return
        place_of = {test: place for place, test in enumerate(self._tests)}
        items[:] = [item for item in items if item.nodeid in place_of]
        items.sort(key=lambda item: place_of[item.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(event='uncollected', test=report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._write(event='start', test=item.nodeid)
        os.environ[RUNNING] = item.nodeid
        self._of_fixtures = (0.0, 0.0)
        cpu, wall = cpu_seconds(), time.monotonic()
        result = yield
        os.environ.pop(RUNNING, None)
        self._write(
            event='end',
            test=item.nodeid,
            passed=item.nodeid not in self._failed,
            cpu=round(cpu_seconds() - cpu - self._of_fixtures[0], 3),
            wall=round(time.monotonic() - wall - self._of_fixtures[1], 3),
            fixtures=_wide_fixtures(item),
        )
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        """Tell a fixture that several tests share from the test that asks for it first."""
        if fixturedef.scope == 'function':
            return (yield)
        outer = os.environ.get(RUNNING, '')
        before = self._of_fixtures
        os.environ[RUNNING] = _name_of(fixturedef)
        cpu, wall = cpu_seconds(), time.monotonic()
        try:
            return (yield)
        finally:
            os.environ[RUNNING] = outer
            cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
            # What it made other fixtures for is theirs.
            inner_cpu = self._of_fixtures[0] - before[0]
            inner_wall = self._of_fixtures[1] - before[1]
            self._of_fixtures = (before[0] + cpu, before[1] + wall)
            self._write(
                event='fixture',
                fixture=_name_of(fixturedef),
                cpu=round(cpu - inner_cpu, 3),
                wall=round(wall - inner_wall, 3),
            )


def _name_of(fixture: pytest.FixtureDef) -> str:
    return f'fixture {fixture.baseid}::{fixture.argname}'


def _wide_fixtures(item: Any) -> list[str]:
    """Return the names of the fixtures of a test that it shares with others."""
    definitions = item._fixtureinfo.name2fixturedefs.values()
    last = [fixtures[-1] for fixtures in definitions]
    return [_name_of(fixture) for fixture in last if fixture.scope != 'function']
