"""The pages on security and trust name tests that are there."""

import re

import pytest

from tests.helpers.tasks import ROOT

#: Page -> how a row of a promise begins, the folder of its tests, and how many there are.
PAGES = {
    'SECURITY.md': (r'\| \*\*.*', '', 8),
    'docs/guides/trust.md': (r'\| (?!promise).*', 'tests', 20),
}


@pytest.mark.parametrize('page', PAGES)
def test_every_promise_names_tests_that_are_there(page):
    begin, folder, count = PAGES[page]
    promises = re.findall(f'(?m)^{begin}', (ROOT / page).read_text('utf-8'))
    assert len(promises) >= count
    for promise in promises:
        files = re.findall(r'`([\w/]+\.py)`', promise.rpartition(' | ')[2])
        assert files and all((ROOT / folder / f).is_file() for f in files), promise
