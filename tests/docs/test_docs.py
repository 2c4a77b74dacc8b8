"""The documentation is right: links lead somewhere, tests are there, and what can run does run."""

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers import quick_python
from tests.helpers.code_blocks import PAGES, ROOT, blocks_of

_LINKED = sorted(
    str(p.relative_to(ROOT))
    for p in (
        *ROOT.glob('*.md'),
        *(ROOT / 'docs').rglob('*.md'),
        *(ROOT / 'configs').rglob('*.md'),
    )
)
_LINK = re.compile(
    r'(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|src="([^"]+)"'
)


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S)
    headings = re.findall(r'^#+ +(.*)$', text, flags=re.M)
    plain = (re.sub(r'[^\w\s-]', '', h.replace('`', '')).lower() for h in headings)
    return {re.sub(r'\s', '-', h.strip()) for h in plain}


@pytest.mark.parametrize('page', _LINKED)
def test_every_link_leads_to_a_file_or_a_heading(page):
    source = ROOT / page
    for groups in _LINK.findall(source.read_text()):
        link = next(g for g in groups if g)
        if re.match(r'[a-z]+:', link):
            continue
        path, _, anchor = link.partition('#')
        target = (source.parent / path).resolve() if path else source
        assert target.exists(), f'{page}: {link}'
        # The built site has nothing else.
        assert not page.startswith('docs/') or target.is_relative_to(ROOT / 'docs'), (
            link
        )
        if anchor and target.suffix == '.md':
            assert anchor in _anchors(target), f'{page}: {link}'


@pytest.mark.parametrize('page', PAGES)
def test_every_command_runs_or_says_why_not(page):
    for block in blocks_of(page):
        if block.language in ('bash', 'sh', 'console'):
            assert block.runs or block.run_by or block.reason, f'{page}:{block.line}'
        if block.run_by:
            there = [c for b in blocks_of(block.run_by) if b.runs for c in b.commands]
            missing = [c for c in block.commands if c not in there]
            assert not missing, f'{page}:{block.line}'


def _types(tree: ast.AST) -> set[str]:
    """Return the names that a fragment gives as ``type='...'``."""
    words = (k for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords)
    return {
        k.value.value
        for k in words
        if k.arg == 'type' and isinstance(k.value, ast.Constant)
    }


def _is_registered(name: str) -> bool:
    import mmaction.registry
    import mmpretrain.registry
    from mmengine import registry as root

    import lm4ve.registry

    kinds = ('MODELS', 'DATASETS', 'HOOKS', 'TRANSFORMS', 'METRICS', 'VISUALIZERS')
    packages = lm4ve.registry, mmpretrain.registry, mmaction.registry, root
    registries = [getattr(package, kind) for package in packages for kind in kinds]
    return any(registry.get(name) for registry in (*registries, root.VISBACKENDS))


@pytest.mark.parametrize('page', PAGES)
def test_fragments_of_configs_parse_and_name_what_is_there(page):
    pytest.importorskip('mmpretrain')
    pytest.importorskip('mmaction')
    for block in blocks_of(page):
        if block.language != 'python':
            continue
        tree = ast.parse(block.code, f'{page}:{block.line}')
        if not block.note:
            for name in _types(tree):
                assert _is_registered(name), f'{page}:{block.line}: {name}'


@pytest.mark.slow
@pytest.mark.parametrize(
    'page', [p for p in PAGES if any(b.runs for b in blocks_of(p))]
)
def test_commands_and_examples_run_in_the_order_of_the_page(page, tmp_path):
    for name in ('configs', 'tools', 'docs', 'Makefile'):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PATH': quick_python.path()}
    log = tmp_path / 'log.txt'
    for block in blocks_of(page):
        if not block.runs:
            continue
        if block.language == 'python':
            command = ['python', '-c', block.code]
        else:
            command = ['bash', '-eu', '-c', block.script()]
        with log.open('ab') as file:
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env=environment,
                stdout=file,
                stderr=file,
                timeout=480,
            )
        where = f'{page}:{block.line}\n{block.code}\n'
        assert done.returncode == 0, where + log.read_text()[-3000:]


#: Page -> how a row of a promise begins, the folder of its tests, and how many there
#: are.
PROMISES = {
    'SECURITY.md': (r'\| \*\*.*', '', 8),
    'docs/guides/trust.md': (r'\| (?!promise).*', 'tests', 20),
}


@pytest.mark.parametrize('page', PROMISES)
def test_every_promise_names_tests_that_are_there(page):
    begin, folder, count = PROMISES[page]
    promises = re.findall(f'(?m)^{begin}', (ROOT / page).read_text('utf-8'))
    assert len(promises) >= count
    for promise in promises:
        files = re.findall(r'`([\w/]+\.py)`', promise.rpartition(' | ')[2])
        assert files and all((ROOT / folder / f).is_file() for f in files), promise
