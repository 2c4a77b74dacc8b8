"""Record which test enters which function: in a copy of the tree, every function says so.

The functions are marked in compiled files, so sources and line numbers stay as they are.
Processes that a test starts are recorded too: they have the test's name from their
environment. Python's own tracing would slow each call of any library, and would be blind
in processes that fork from a warm interpreter.
"""

import ast
import importlib.util
import marshal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mutating.plugin import RUNNING
from mutating.running import Outcome, Tree, run_tests
from mutating.sources import FUNCTIONS

#: A module that marked functions call. Each process writes a file of its own. What
#: torch.compile traces is not recorded: the graph would break in every function.
_MODULE = """\
import os
import sys

_seen = set()


def is_traced():
    torch = sys.modules.get('torch')
    return torch is not None and torch.compiler.is_compiling()


def enter(number):
    key = (os.environ.get({running!r}, ''), number)
    if key not in _seen:
        _seen.add(key)
        with open(f'{folder}/{{os.getpid()}}', 'a', encoding='utf-8') as file:
            file.write(f'{{number}} {{key[0]}}\\n')
"""
_NAME = 'lm4ve_entered'
_IMPORT = f'from {_NAME} import enter as _lm4ve_enter, is_traced as _lm4ve_is_traced'
_MARK = 'if not _lm4ve_is_traced(): _lm4ve_enter({number})'
#: A compiled file that is used whatever the source's time is (PEP 552).
_UNCHECKED = (1).to_bytes(4, 'little') + bytes(8)

Function = tuple[str, str]


def mark_functions(projects: Path, folder: Path) -> list[Function]:
    """Mark every function of a copy of the package.

    Args:
        projects (Path): The folder of the package ``lm4ve``; it gets compiled files.
        folder (Path): Where processes will write what they entered.

    Returns:
        list[Function]: File and qualified name of each function, by its number.
    """
    folder.mkdir(parents=True)
    text = _MODULE.format(running=RUNNING, folder=folder)
    (projects / f'{_NAME}.py').write_text(text, encoding='utf-8')
    functions: list[Function] = []
    package = projects / 'lm4ve'
    for path in sorted(package.rglob('*.py')):
        tree = ast.parse(path.read_bytes())
        file = path.relative_to(package).as_posix()
        for name, node in _functions_of(tree, ''):
            _mark(node, len(functions))
            functions.append((file, name))
        if tree.body:
            # ``from __future__`` comes first.
            _insert(tree, _IMPORT, after=(ast.ImportFrom,))
        code = compile(tree, str(path), 'exec', dont_inherit=True)
        compiled = Path(importlib.util.cache_from_source(str(path)))
        compiled.parent.mkdir(exist_ok=True)
        content = importlib.util.MAGIC_NUMBER + _UNCHECKED + marshal.dumps(code)
        compiled.write_bytes(content)
    return functions


def _functions_of(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            name = f'{scope}.{child.name}' if scope else child.name
            if not isinstance(child, ast.ClassDef):
                yield name, child
            yield from _functions_of(child, name)
        else:
            yield from _functions_of(child, scope)


def _mark(node: ast.AST, number: int) -> None:
    """Let a function begin with a call."""
    _insert(node, _MARK.format(number=number), after=())


def _insert(node: Any, text: str, after: tuple[type[ast.stmt], ...]) -> None:
    """Insert a statement after the docstring of a module or function, on the same line.

    Args:
        node (Any): The module or function.
        text (str): The statement.
        after (tuple): Further types of statements that stay before it.
    """
    statement = ast.parse(text).body[0]
    at = 0
    if ast.get_docstring(node, clean=False) is not None:
        at = 1
    while at < len(node.body) and isinstance(node.body[at], after):
        at += 1
    beside = node.body[min(at, len(node.body) - 1)]
    for part in ast.walk(statement):
        ast.copy_location(part, beside)
    node.body.insert(at, statement)


def record(checkout: Path, paths: list[str], marks: str, output: Path) -> dict:
    """Run the tests of some folders in a marked copy of the tree.

    Args:
        checkout (Path): Whose tree is copied.
        paths (list[str]): Folders or files of tests, below the checkout.
        marks (str): Which tests, as pytest's ``-m``.
        output (Path): Gets what the tests print; a log lies beside it.

    Returns:
        dict: ``functions``, by number, as ``file::name``; ``tests``, by id, with the
        seconds of ``cpu`` and ``wall``, whether it ``passed``, its shared ``fixtures``
        and the numbers of the functions that it ``entered``; ``fixtures``, likewise;
        and what ``imports`` enter.
    """
    tree = Tree(checkout)
    entered = tree.folder / 'entered'
    functions = mark_functions(tree.root / 'projects', entered)
    tests: dict[str, dict] = {}
    fixtures: dict[str, dict] = {}
    outcome = run_tests(tree, paths, None, {}, ('-m', marks), output)
    every = outcome.collected
    while True:
        _add(outcome, tests, fixtures)
        if outcome.how not in ('crash', 'memory', 'timeout'):
            break
        # One test ended the process; the others run in another one.
        tests[outcome.failed] = dict(cpu=0.0, wall=0.0, passed=False, fixtures=[])
        left = [test for test in every if test not in tests]
        if not left:
            break
        outcome = run_tests(tree, paths, left, {}, ('-m', marks), output)
    entries = _read_entries(entered)
    tree.remove()
    repeat_failed(checkout, tests, output.with_name(f'{output.stem}-failed.txt'))
    for name, row in (*tests.items(), *fixtures.items()):
        row['entered'] = entries.get(name, [])
    return dict(
        functions=[f'{file}::{name}' for file, name in functions],
        tests=tests,
        fixtures=fixtures,
        imports=entries.get('', []),
    )


def repeat_failed(checkout: Path, tests: dict[str, dict], output: Path) -> None:
    """Run the tests that failed in a copy without marks, which may be why they failed.

    A mark splits the graphs of ``torch.compile``.
    """
    failed = [test for test, row in tests.items() if not row['passed']]
    if not failed:
        return
    files = list(dict.fromkeys(test.partition('::')[0] for test in failed))
    tree = Tree(checkout)
    outcome = run_tests(tree, files, failed, {}, (), output)
    tree.remove()
    _add(outcome, tests, {})


def _add(outcome: Outcome, tests: dict[str, dict], fixtures: dict[str, dict]) -> None:
    for line in outcome.tests:
        fields = ('cpu', 'wall', 'passed', 'fixtures')
        tests[line['test']] = {name: line[name] for name in fields}
    for line in outcome.fixtures:
        longest = fixtures.setdefault(line['fixture'], dict(cpu=0.0, wall=0.0))
        for name in longest:
            longest[name] = max(longest[name], line[name])


def _read_entries(folder: Path) -> dict[str, list[int]]:
    """Return what was entered: test or shared fixture (or '' in imports) -> numbers."""
    entries: dict[str, set[int]] = {}
    for path in sorted(folder.iterdir()):
        for line in path.read_text(encoding='utf-8').splitlines():
            number, _, running = line.partition(' ')
            entries.setdefault(running, set()).add(int(number))
    return {running: sorted(numbers) for running, numbers in entries.items()}
