"""Mutations are found by what they change, run against the tests, and compared."""

import ast
import os
import subprocess
import sys

import pytest

from tests.helpers.tasks import ROOT

pytest.importorskip('psutil')
TOY = b'''\
"""A text with 1 and True."""

def limit(values: list[1], least: int = 3, *, strict: bool = True) -> int:
    """Return 2, not 4."""
    out = 0
    for value in values:
        if not value:
            continue
        out += value * 7
    if out < least and strict:
        log(5)
        raise ValueError(6, f'{out + 8}')
    return out
'''


@pytest.fixture(scope='module')
def mutations():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools/dev'))
        import mutations

        yield mutations


@pytest.fixture(scope='module')
def sources(mutations):
    from mutating import sources

    return sources


def changes(sources, source):
    places = sources.find_places('toy.py', source)
    return [(p.mutation.kind, p.mutation.before, p.mutation.after) for p in places]


def test_operators_constants_conditions_and_exits_are_mutated_and_no_text(sources):
    assert changes(sources, TOY) == [
        ('constant', '3', '4'),
        ('constant', 'True', 'False'),
        ('constant', '0', '1'),
        ('branch', 'not value', 'not (not value)'),
        ('branch', 'not value', 'True'),
        ('branch', 'not value', 'False'),
        ('boolean', 'not value', 'value'),
        ('exit', 'continue', 'pass'),
        ('arithmetic', 'out += value * 7', 'out -= value * 7'),
        ('arithmetic', 'value * 7', 'value / 7'),
        ('constant', '7', '8'),
        ('branch', 'out < least and strict', 'not (out < least and strict)'),
        ('branch', 'out < least and strict', 'True'),
        ('branch', 'out < least and strict', 'False'),
        ('boolean', 'out < least and strict', 'out < least or strict'),
        ('comparison', 'out < least', 'out <= least'),
    ]


def test_every_mutation_of_the_library_is_another_program(sources):
    library = sources.read_sources(ROOT / 'projects/lm4ve')
    count = 0
    for file, source in list(library.items())[::10]:
        tree = ast.dump(ast.parse(source))
        for place in sources.find_places(file, source)[::10]:
            mutated = sources.mutate(source, place)
            assert ast.dump(ast.parse(mutated)) != tree
            count += 1
    assert count > 100


def test_an_expression_keeps_its_operands(sources):
    source = b'def f(a, b, c):\n    return a * b ** 2 * c\n'
    places = sources.find_places('toy.py', source)
    (place,) = [p for p in places if p.mutation.after == 'b * 2']
    assert b'return a * (b * 2) * c' in sources.mutate(source, place)


def test_a_seed_draws_the_same_list_of_different_functions(sources):
    text = b''.join(b'def f%d(x):\n    return x + 1 < 2\n' % i for i in range(9))
    files = {'a/x.py': text, 'b/x.py': text}

    def draw(seed, count=9):
        in_room = lambda file: file.startswith('a/')  # noqa: E731
        return sources.draw(files, in_room, count, seed)

    assert draw('1') == draw('1') != draw('2')
    assert {m.file for m in draw('1')} == {'a/x.py'}
    assert len({m.function for m in draw('1')}) == 9
    assert len(set(draw('1', 20))) == 20


@pytest.mark.parametrize(
    ('files', 'found'),
    [
        ({'a.py': b'# new\nX = 1\n' + TOY}, 'a.py'),
        ({'b.py': TOY, 'c.py': b'def other(x):\n    return x * 7\n'}, 'b.py'),
        ({'a.py': TOY.replace(b'out +=', b'out = out +')}, 'a.py'),
        ({'a.py': TOY.replace(b' * 7', b' * 9')}, 'the line has changed'),
        ({'a.py': TOY.replace(b'limit(', b'bound(')}, 'the function is gone'),
        ({'b.py': TOY, 'c.py': TOY}, 'the function is gone'),
        ({}, 'the function is gone'),
    ],
)
def test_a_mutation_is_found_again_or_said_to_be_gone(sources, files, found):
    places = sources.find_places('a.py', TOY)
    (stored,) = [p.mutation for p in places if p.mutation.after == 'value / 7']
    place = sources.locate(stored, files)
    if found.endswith('.py'):
        assert place.mutation.file == found
        assert b'(value / 7)' in sources.mutate(files[found], place)
    else:
        assert place == found


def test_the_statement_that_a_mutation_makes_is_told(sources):
    lines = []
    for place in sources.find_places('toy.py', TOY):
        lines.append(sources.mutated_line(TOY, place))
    assert lines[:5] == [
        'def limit(values: list[1], least: int=4, *, strict: bool=True) -> int:',
        'def limit(values: list[1], least: int=3, *, strict: bool=False) -> int:',
        'out = 1',
        'if not not value:',
        'if True:',
    ]
    assert lines[7:9] == ['pass', 'out -= value * 7']


def test_equal_mutations_of_a_function_are_told_apart(sources):
    source = b'def f(x):\n    y = x + 1\n    y = x + 1\n    return y\n'
    places = sources.find_places('a.py', source)
    sums = [p for p in places if p.mutation.kind == 'arithmetic']
    for place in sums:
        assert sources.locate(place.mutation, {'a.py': source}) == place
    assert len({sources.mutate(source, place) for place in sums}) == 2


LIBRARY = """\
def at_most(value, limit):
    if value > limit:
        return limit
    return value


def forgotten(value):
    return value + 1


def count_down(number):
    while number > 0:
        number -= 1
    return number


def enter(lock, is_free):
    if is_free:
        lock.acquire()
"""
TESTS = """\
import subprocess
import sys
import threading

import pytest

from lm4ve.blocks.toy import at_most, count_down, enter


@pytest.fixture(scope='module')
def counted():
    return count_down(3)


def test_limit():
    assert at_most(1, 2) == 1
    assert at_most(3, 2) == 2


def test_count(counted):
    assert counted == 0


def test_limit_in_a_process():
    code = 'from lm4ve.blocks.toy import at_most; assert at_most(5, 4) == 4'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_enter():
    lock = threading.Lock()
    lock.acquire()
    enter(lock, False)


def test_that_fails_anyway():
    assert at_most(1, 1) == 2
"""
#: The command in a toy checkout, where nothing has to be imported and a loop ends soon.
COMMAND = """\
import sys
sys.path.insert(0, {tools!r})
import mutations
from mutating import running
running.LIBRARIES = ()
running.MORE = 1
running.TIMES = 2
sys.exit(mutations.main({words!r}))
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / 'checkout'
    for name, text in (
        ('projects/lm4ve/__init__.py', ''),
        ('projects/lm4ve/blocks/__init__.py', ''),
        ('projects/lm4ve/blocks/toy.py', LIBRARY),
        ('tests/blocks/test_toy.py', TESTS),
        ('pyproject.toml', ''),
        ('.gitignore', 'work_dirs/\n__pycache__/\n'),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(['git', 'init', '-q'], cwd=folder, check=True)
    return folder


@pytest.fixture
def command(checkout):
    def run(*words):
        words = [*words, '--rooms', 'blocks', '--checkout', str(checkout)]
        code = COMMAND.format(tools=str(ROOT / 'tools/dev'), words=words)
        return subprocess.run(
            [sys.executable, '-c', code],
            text=True,
            capture_output=True,
            timeout=300,
            env={**os.environ, 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'},
        )

    return run


#: The expressions of the toy library that are mutated, and what replaces them.
OF_LIBRARY = {
    'turned': ('value > limit', 'not (value > limit)'),
    'equivalent': ('value > limit', 'value >= limit'),
    'uncovered': ('value + 1', 'value - 1'),
    'loop': ('number -= 1', 'number += 1'),
    'end': ('0', '1'),
    'deadlock': ('is_free', 'True'),
}


@pytest.fixture
def stored(mutations, sources, checkout):
    """``stored()``: the rows of the toy library, by name; without verdicts at first."""
    rows = []
    for place in sources.find_places('blocks/toy.py', LIBRARY.encode()):
        fields = mutations.asdict(place.mutation)
        for name, change in OF_LIBRARY.items():
            if (fields['before'], fields['after']) == change:
                becomes = sources.mutated_line(LIBRARY.encode(), place)
                rows.append(dict(id=name, **fields, becomes=becomes))
    folder = checkout / mutations.STORED
    mutations.write_room(folder, 'blocks', dict(room='blocks', mutations=rows))

    def read():
        content = mutations.read_room(folder, 'blocks')
        return {row['id']: row for row in content['mutations']}

    return read


@pytest.mark.slow
def test_mutations_are_run_and_compared_with_a_later_tree(checkout, stored, command):
    ran = command('--run')
    assert ran.returncode == 0, ran.stderr
    rows = stored()
    assert set(rows) == set(OF_LIBRARY)
    verdicts = {name: row['verdict'] for name, row in rows.items()}
    assert verdicts == {
        'turned': 'caught',
        'equivalent': 'survived',
        'uncovered': 'not covered',
        'loop': 'caught',
        'end': 'caught',
        'deadlock': 'caught',
    }
    file = 'tests/blocks/test_toy.py'
    assert rows['turned']['killed_by'].startswith(f'{file}::test_')
    # The test that fails without a mutation is not among them.
    assert rows['equivalent']['tests'] == 2
    assert rows['loop']['killed_by'] == f'timeout: {file}::test_count'
    assert rows['deadlock']['killed_by'] == f'timeout: {file}::test_enter'
    library = checkout / 'projects/lm4ve/blocks/toy.py'
    assert library.read_text() == LIBRARY

    # A later tree: one test has become empty, a function is gone, and all has moved.
    library.write_text(LIBRARY.replace('forgotten', 'remembered'))
    library.rename(library.with_name('moved.py'))
    emptied = TESTS.replace('counted == 0', 'counted is not None')
    tests = checkout / file
    tests.write_text(emptied.replace('blocks.toy', 'blocks.moved'))
    compared = command('--compare')
    assert compared.returncode == 1, compared.stderr
    printed = compared.stdout
    assert 'blocks: 1 caught before, not caught now\n  end ' in printed
    assert 'blocks: 1 gone\n  uncovered ' in printed
    assert 'blocks: 0 newly caught' in printed
    assert stored() == rows


def test_a_run_that_was_interrupted_goes_on(mutations, checkout, stored, command):
    rows = stored()
    rows['loop'] |= dict(verdict='survived', killed_by='', tests=1)
    left = {name: rows[name] for name in ('loop', 'uncovered')}
    content = dict(room='blocks', mutations=list(left.values()))
    mutations.write_room(checkout / mutations.STORED, 'blocks', content)
    ran = command('--run')
    assert ran.returncode == 0, ran.stderr
    assert stored()['loop'] == rows['loop']
    assert stored()['uncovered']['verdict'] == 'not covered'


def test_every_stored_mutation_has_a_verdict_and_the_page_counts_them(mutations):
    folder = ROOT / mutations.STORED
    contents = [mutations.read_room(folder, room) for room in mutations.ROOMS]
    assert sum(len(content['mutations']) for content in contents) == 150
    for content in contents:
        for row in content['mutations']:
            assert row['verdict'] in ('caught', 'survived', 'not covered')
            assert bool(row['killed_by']) == (row['verdict'] == 'caught')
            if row['verdict'] == 'survived':
                assert row['tests'] > 0
            if row['verdict'] == 'not covered':
                assert row['tests'] == 0
    page = (ROOT / 'docs/results/mutations.md').read_text(encoding='utf-8')
    assert mutations.table(contents) in page
    assert len(mutations.survivors(contents).splitlines()) == 24 + 7
