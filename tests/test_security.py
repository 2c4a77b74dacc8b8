"""The pages on security and trust name tests that are there."""

import re

from tests.helpers.tasks import ROOT


def test_every_promise_names_its_tests():
    promises = re.findall(r'^\| \*\*.*', (ROOT / 'SECURITY.md').read_text('utf-8'), re.MULTILINE)
    assert promises
    for promise in promises:
        files = re.findall(r'`(tests/\S+\.py)`', promise)
        assert files and all((ROOT / f).is_file() for f in files), promise


def test_the_guide_names_tests_that_are_there():
    rows = re.findall(r'(?m)^\| .* \|$', (ROOT / 'docs/guides/trust.md').read_text('utf-8'))
    promises = [row.rpartition(' | ')[2] for row in rows if not row.startswith('| promise')]
    assert len(promises) > 20
    for promise in promises:
        files = re.findall(r'`([\w/]+\.py)`', promise)
        assert files and all((ROOT / 'tests' / f).is_file() for f in files), promise
