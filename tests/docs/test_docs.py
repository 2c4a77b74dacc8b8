"""The documentation is right: links lead somewhere, tests are there, and what can run does run."""

import ast
import os
import re
import subprocess
from pathlib import Path

import mmengine.registry
import pytest

import lm4ve.registry
from tests.helpers import quick_python
from tests.helpers.code_blocks import PAGES, ROOT, blocks_of

#: The targets of links and pictures, of Markdown and of HTML.
_LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)|src="([^"]+)"')


def _pages_with_links() -> list[str]:
    files = [*ROOT.glob('*.md')]
    for folder in ('docs', 'configs', 'projects/llm4seg'):
        files.extend((ROOT / folder).rglob('*.md'))
    return sorted(str(file.relative_to(ROOT)) for file in files)


def _links(page: Path) -> list[str]:
    """Return the targets of a page's links that lie in this project."""
    links = [markdown or html for markdown, html in _LINK.findall(page.read_text())]
    return [link for link in links if not re.match(r'[a-z]+:', link)]


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    without_code = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S)
    anchors = set()
    for heading in re.findall(r'^#+ +(.*)$', without_code, flags=re.M):
        letters = re.sub(r'[^\w\s-]', '', heading).lower().strip()
        anchors.add(re.sub(r'\s', '-', letters))
    return anchors


@pytest.mark.parametrize('page', _pages_with_links())
def test_every_link_leads_to_a_file_or_a_heading(page):
    source = ROOT / page
    for link in _links(source):
        path, _, anchor = link.partition('#')
        target = source
        if path:
            target = (source.parent / path).resolve()
        assert target.exists(), f'{page}: {link}'
        if page.startswith('docs/'):  # the built site contains nothing else
            assert target.is_relative_to(ROOT / 'docs'), link
        if anchor and target.suffix == '.md':
            assert anchor in _anchors(target), f'{page}: {link}'


@pytest.mark.parametrize('page', PAGES)
def test_every_command_runs_or_says_why_not(page):
    for block in blocks_of(page):
        where = f'{page}:{block.line}'
        if block.language in ('bash', 'sh', 'console'):
            assert block.runs or block.run_by or block.reason, where
        if block.run_by:
            assert set(block.commands) <= _commands_run_by(block.run_by), where


def _commands_run_by(page: str) -> set[str]:
    commands = set()
    for block in blocks_of(page):
        if block.runs:
            commands.update(block.commands)
    return commands


def _types(tree: ast.AST) -> set[str]:
    """Return the names that a fragment gives as ``type='...'``."""
    names = set()
    for node in ast.walk(tree):
        is_type = isinstance(node, ast.keyword) and node.arg == 'type'
        if is_type and isinstance(node.value, ast.Constant):
            names.add(node.value.value)
    return names


def _is_registered(name: str) -> bool:
    import mmaction.registry
    import mmpretrain.registry

    registries = [mmengine.registry.VISBACKENDS]
    kinds = ('MODELS', 'DATASETS', 'HOOKS', 'TRANSFORMS', 'METRICS', 'VISUALIZERS')
    for kind in (*kinds, 'OPTIM_WRAPPERS', 'WEIGHT_INITIALIZERS'):
        for package in (lm4ve, mmpretrain, mmaction, mmengine):
            registries.append(getattr(package.registry, kind))
    return any(registry.get(name) for registry in registries)


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


def _runs(page: str) -> bool:
    return any(block.runs for block in blocks_of(page))


@pytest.mark.slow
@pytest.mark.parametrize('page', [page for page in PAGES if _runs(page)])
def test_commands_and_examples_run_in_the_order_of_the_page(page, tmp_path):
    for name in ('configs', 'projects', 'tools', 'docs', 'Makefile'):
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


def test_every_promise_names_tests_that_are_there():
    page = (ROOT / 'docs/guides/trust.md').read_text('utf-8')
    promises = re.findall(r'(?m)^\| (?!promise).*', page)
    assert len(promises) >= 20
    for promise in promises:
        files = re.findall(r'`([\w/]+\.py)`', promise.rpartition(' | ')[2])
        assert files, promise
        for file in files:
            assert (ROOT / 'tests' / file).is_file(), file
