"""The page on security names tests that are there."""

import re

from tests.helpers.tasks import ROOT


def test_every_promise_names_its_tests():
    promises = re.findall(r'^\| \*\*.*', (ROOT / 'SECURITY.md').read_text('utf-8'), re.MULTILINE)
    assert promises
    for promise in promises:
        files = re.findall(r'`(tests/\S+\.py)`', promise)
        assert files and all((ROOT / f).is_file() for f in files), promise
