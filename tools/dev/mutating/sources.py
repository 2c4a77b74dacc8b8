"""Find what can be mutated in the functions of a source file, and mutate it.

A mutation is named by its file, the qualified name of its function, the statement and
the expression that it changes, never by a line number: so it is found again after code
around it has changed or moved.
"""

import ast
import copy
import functools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
#: Functions that only tell people something.
UNTESTED_FUNCTIONS = ('__repr__', '__str__', 'extra_repr')
#: Calls that only tell somebody something, or that only type checkers read.
UNTESTED_CALLS = (
    *('print', 'print_log', 'log', 'debug', 'info', 'warn', 'warning', 'error'),
    *('warn_once', 'cast', 'TypeVar'),
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Mutation:
    """One change of one expression or statement.

    Attributes:
        file (str): Path below the package's folder.
        function (str): Qualified name of the innermost function, without ``<locals>``.
        kind (str): ``arithmetic``, ``comparison``, ``constant``, ``boolean``,
            ``branch``, or ``exit``: an early return or a ``continue`` is left out.
        line (str): The statement, or the head of a compound one, as
            :func:`ast.unparse` writes it.
        before (str): What is replaced, written likewise.
        after (str): What replaces it.
        occurrence (int): Which one, where a function has several that are equal in all
            this; from 0.
    """

    file: str
    function: str
    kind: str
    line: str
    before: str
    after: str
    occurrence: int = 0


@dataclass(frozen=True)
class Place:
    """Where a mutation stands in a file.

    Attributes:
        mutation (Mutation): What changes.
        start (int): First byte that is replaced.
        stop (int): The byte after the last one.
        is_expression (bool): Whether it needs parentheses.
    """

    mutation: Mutation
    start: int
    stop: int
    is_expression: bool


class _Finder(ast.NodeVisitor):
    """Collects the places of a module in the order of its text."""

    def __init__(self, file: str, source: bytes) -> None:
        self.file = file
        self.places: list[Place] = []
        self._scope: list[str] = []
        self._functions = 0
        self._line = ''
        self._last: ast.stmt | None = None
        self._seen: dict[Mutation, int] = {}
        self._starts = _starts_of_lines(source)

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            outer = self._line
            self._line = _head(node)
            super().visit(node)
            self._line = outer
        else:
            super().visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scope.append(node.name)
        self._visit_all(node.body)
        self._scope.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in UNTESTED_FUNCTIONS:
            return
        self._scope.append(node.name)
        self._functions += 1
        outer, self._last = self._last, node.body[-1]
        self._visit_all(default for default in node.args.defaults)
        self._visit_all(default for default in node.args.kw_defaults if default)
        self._visit_all(_without_docstring(node.body))
        self._last = outer
        self._functions -= 1
        self._scope.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Leave errors and their messages as they are."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave messages as they are."""

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
        if name in UNTESTED_CALLS:
            return
        if name in ('isinstance', 'issubclass'):
            self.visit(node.args[0])
            return
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        other = ARITHMETIC.get(type(node.op))
        if other is not None and not _is_text(node.left) and not _is_text(node.right):
            changed = copy.copy(node)
            changed.op = other()
            self._add('arithmetic', node, ast.unparse(changed))
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        other = ARITHMETIC.get(type(node.op))
        if other is not None and not _is_text(node.value):
            changed = copy.copy(node)
            changed.op = other()
            self._add('arithmetic', node, ast.unparse(changed))
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        changed = copy.copy(node)
        changed.ops = [COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
        self._add('comparison', node, ast.unparse(changed))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add('constant', node, str(not node.value))
        elif isinstance(node.value, int | float):
            self._add('constant', node, repr(node.value + 1))

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        changed = copy.copy(node)
        changed.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        self._add('boolean', node, ast.unparse(changed))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add('boolean', node, ast.unparse(node.operand))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        for after in (f'not ({ast.unparse(node.test)})', 'True', 'False'):
            self._add('branch', node.test, after)
        self.generic_visit(node)

    visit_IfExp = visit_If  # type: ignore[assignment]

    def visit_Return(self, node: ast.Return) -> None:
        self._add_exit(node)
        self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add_exit(node)

    def _add_exit(self, node: ast.Return | ast.Continue) -> None:
        """Offer to remove an exit, unless it ends the function anyway."""
        if node is not self._last:
            self._add('exit', node, 'pass')

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _add(self, kind: str, node: ast.expr | ast.stmt, after: str) -> None:
        if self._functions == 0:
            return
        before = ast.unparse(node)
        if before == after:
            return
        function = '.'.join(self._scope)
        mutation = Mutation(self.file, function, kind, self._line, before, after)
        occurrence = self._seen.get(mutation, 0)
        self._seen[mutation] = occurrence + 1
        numbered = Mutation(
            self.file, function, kind, self._line, before, after, occurrence
        )
        assert node.end_lineno is not None and node.end_col_offset is not None
        place = Place(
            mutation=numbered,
            start=self._starts[node.lineno - 1] + node.col_offset,
            stop=self._starts[node.end_lineno - 1] + node.end_col_offset,
            is_expression=isinstance(node, ast.expr),
        )
        self.places.append(place)


def _starts_of_lines(source: bytes) -> list[int]:
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _head(node: ast.stmt) -> str:
    """Return a statement as text, a compound one without its body."""
    if not hasattr(node, 'body'):
        return ast.unparse(node)
    bare = copy.copy(node)
    bare.body = [ast.Expr(ast.Constant(...))]  # type: ignore[attr-defined]
    for name in ('orelse', 'finalbody', 'handlers', 'decorator_list'):
        if hasattr(bare, name):
            setattr(bare, name, [])
    if isinstance(bare, ast.Try):
        return 'try:'
    return ast.unparse(bare).partition('\n')[0]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if is_text else body


def _is_text(node: ast.expr) -> bool:
    """Return whether an operand is text, a list or a dict, which have no other operator."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes)
    return isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.Dict | ast.Set)


@functools.cache
def find_places(file: str, source: bytes) -> list[Place]:
    """Return all places of a source file at which something can be mutated."""
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    return finder.places


def mutate(source: bytes, place: Place) -> bytes:
    """Return the source with one place mutated.

    Raises:
        SyntaxError: The result is no Python; this never happens for a drawn mutation.
    """
    after = place.mutation.after.encode()
    if place.is_expression:
        after = b'(' + after + b')'
    mutated = source[: place.start] + after + source[place.stop :]
    compile(mutated, place.mutation.file, 'exec', dont_inherit=True)
    return mutated


def mutated_line(source: bytes, place: Place) -> str:
    """Return what :attr:`Mutation.line` becomes."""
    mutated = mutate(source, place)
    starts = _starts_of_lines(mutated)
    innermost = None
    first = -1
    for node in ast.walk(ast.parse(mutated)):
        if isinstance(node, ast.stmt):
            start = starts[node.lineno - 1] + node.col_offset
            if first < start <= place.start:
                first = start
                innermost = node
    assert innermost is not None
    return _head(innermost)


def read_sources(package: Path) -> dict[str, bytes]:
    """Return path below the package's folder -> content, of every source file."""
    files = sorted(package.rglob('*.py'))
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in files}


def draw(
    sources: dict[str, bytes], is_in_room: Callable[[str], bool], count: int, seed: str
) -> list[Mutation]:
    """Draw mutations of a room, each in another function as long as there is one.

    The kind is drawn before the place, or constants, which are many, would be most.

    Args:
        sources (dict): See :func:`read_sources`.
        is_in_room (Callable): Whether a file belongs to the room.
        count (int): How many.
        seed (str): Of the random numbers.

    Returns:
        list[Mutation]: By file and function.
    """
    rng = random.Random(seed)
    of_function: dict[tuple[str, str], list[Mutation]] = {}
    for file, source in sources.items():
        if is_in_room(file):
            for place in find_places(file, source):
                key = (file, place.mutation.function)
                of_function.setdefault(key, []).append(place.mutation)
    drawn: list[Mutation] = []
    while of_function and len(drawn) < count:
        functions = sorted(of_function)
        rng.shuffle(functions)
        for function in functions[: count - len(drawn)]:
            left = of_function[function]
            kind = rng.choice(sorted({mutation.kind for mutation in left}))
            mutation = rng.choice([m for m in left if m.kind == kind])
            drawn.append(mutation)
            left.remove(mutation)
            if not left:
                del of_function[function]
    return sorted(drawn, key=lambda m: (m.file, m.function))


def locate(mutation: Mutation, sources: dict[str, bytes]) -> Place | str:
    """Find a stored mutation in sources that may have changed since.

    It is looked for in its file; then, if the function is no longer there, in a function
    of the same qualified name in any file; then in one of the same plain name. Only one
    place may fit, or the mutation is not applied.

    Returns:
        Place | str: Where it stands, or why it is gone.
    """
    places = []
    for file, source in sources.items():
        places += find_places(file, source)
    name = mutation.function.rpartition('.')[2]
    in_file = [
        place
        for place in places
        if place.mutation.file == mutation.file
        and place.mutation.function == mutation.function
    ]
    if in_file:
        return _choose(mutation, in_file) or 'the line has changed'
    qualified = [p for p in places if p.mutation.function == mutation.function]
    plain = [p for p in places if p.mutation.function.rpartition('.')[2] == name]
    for group in (qualified, plain):
        fitting = []
        for file in sorted({place.mutation.file for place in group}):
            of_file = [place for place in group if place.mutation.file == file]
            chosen = _choose(mutation, of_file)
            if chosen is not None:
                fitting.append(chosen)
        if len(fitting) == 1:
            return fitting[0]
    return 'the function is gone'


def _choose(mutation: Mutation, places: list[Place]) -> Place | None:
    """Return the place of a function that fits, by its line or as the only expression."""
    same = []
    for place in places:
        there = place.mutation
        change = (there.kind, there.before, there.after)
        if change == (mutation.kind, mutation.before, mutation.after):
            same.append(place)
    for place in same:
        there = place.mutation
        if (there.line, there.occurrence) == (mutation.line, mutation.occurrence):
            return place
    return same[0] if len(same) == 1 else None
