"""The built site in headless Chromium: what a reader sees, and what goes wrong unseen."""

import os
import re
import shutil
import subprocess
import sys
from urllib.parse import urlparse

import pytest

from tests.helpers.code_blocks import ROOT

sync_api = pytest.importorskip('playwright.sync_api')
pytestmark = pytest.mark.slow
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
if CHROMIUM is None and 'CI' not in os.environ:  # in CI, Playwright fails then
    pytest.skip(
        'no Chromium is installed: apt-get install chromium', allow_module_level=True
    )

SITE = 'http://site.test/'
PAGES = [
    '',
    'get_started/install/',
    'get_started/first_run/',
    'get_started/faq/',
    'get_started/your_own_data/',
    'notebooks/first_steps/',
    'guides/action_recognition/',
    'guides/language_models/',
    'extend/any_model/',
    'extend/architecture/',
    'results/demos/',
    'results/evidence/',
    'reference/necks/',
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('site')
    build = '-m mkdocs build --strict --quiet -d'.split()
    environment = {**os.environ, 'REPOSITORY_URL': 'https://example.org/lm4ve'}
    subprocess.run([sys.executable, *build, out], cwd=ROOT, env=environment, check=True)
    return out


@pytest.fixture(scope='module')
def browser():
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox']
        )


@pytest.fixture
def page(browser, folder):
    """A page of a phone's width; ``page.errors`` has what goes wrong, and foreign addresses."""
    opened = browser.new_page(viewport=dict(width=390, height=844))
    opened.errors = []

    def serve(route):
        address = route.request.url
        file = folder / urlparse(address).path.strip('/')
        if file.is_dir():
            file = file / 'index.html'
        if address.startswith(SITE) and file.exists():
            route.fulfill(path=file)
        else:
            opened.errors.append(address)
            route.abort()

    def note_error(message):
        if message.type == 'error':
            opened.errors.append(message.text)

    opened.context.route('**/*', serve)
    opened.on('console', note_error)
    opened.on('pageerror', lambda error: opened.errors.append(str(error)))
    yield opened
    opened.close()


@pytest.mark.parametrize('path', PAGES)
def test_page_opens_whole_and_fits_a_phone(path, page):
    page.goto(SITE + path)
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.wait_for_function('[...document.images].every(i => i.complete)')
    broken = page.evaluate(
        '[...document.images].filter(i => !i.naturalWidth).map(i => i.src)'
    )
    width = page.evaluate('document.documentElement.scrollWidth')
    assert broken == []
    assert page.errors == []
    assert width == 390


@pytest.mark.parametrize('path', PAGES)
def test_code_and_tables_fit_their_column(path, page):
    page.set_viewport_size(dict(width=1280, height=900))
    page.goto(SITE + path)
    assert too_wide(page, 'pre, pre > code, .md-typeset__scrollwrap') == []
    page.set_viewport_size(dict(width=400, height=900))
    assert too_wide(page, '.language-bash code, .language-python code') == []


def too_wide(page, selector):
    """Return the texts of the elements whose content is cut, or has to be moved sideways."""
    return page.evaluate(
        """selector => [...document.querySelectorAll(selector)]
        .filter(element => element.scrollWidth > element.clientWidth + 1)
        .map(element => element.innerText)""",
        selector,
    )


def test_lines_that_wrap_are_copied_whole(page):
    page.goto(SITE + 'get_started/your_own_data/')
    code = page.locator('.language-python pre').first
    page.evaluate(
        """document.addEventListener('copy', () => {
            window.copied = document.getSelection().toString()
        })"""
    )
    code.locator('button').first.click()
    page.wait_for_function('window.copied')
    copied = page.evaluate('window.copied')
    assert copied.strip() == code.locator('code').text_content().strip()


#: What newcomers type -> the page that answers it, the first one that is shown.
ANSWERS = {
    'own images': 'get_started/your_own_data/',
    'custom dataset': 'get_started/your_own_data/',
    'notebook': 'get_started/install/',
    'tutorial': 'get_started/faq/',
    'early stopping': 'guides/wishes/',
    'confusion': 'guides/wishes/',
    'class weights': 'guides/wishes/',
    'data augmentation': 'guides/wishes/',
    'wandb': 'guides/wishes/',
    'tensorboard': 'guides/wishes/',
    'multi-GPU': 'guides/distributed_training/',
    'multi-node': 'get_started/faq/',
    'slurm': 'guides/ablations/',
    'learning rate': 'guides/distributed_training/',
    'gradient accumulation': 'guides/distributed_training/',
    'out of memory': 'get_started/faq/',
    'OOM': 'get_started/faq/',
    'num_workers': 'get_started/faq/',
    'loss is nan': 'get_started/faq/',
    'mixed precision': 'guides/precision/',
    'fine-tune': 'get_started/faq/',
    'transfer learning': 'get_started/faq/',
    'LoRA': 'guides/variants/',
    'timm': 'extend/any_model/',
    'freeze': 'extend/any_model/',
    'Hugging Face': 'get_started/faq/',
    'checkpoint': 'guides/wishes/',
    'inference': 'guides/inference/',
    'regression': 'get_started/faq/',
    'multi-label': 'get_started/faq/',
    'webp': 'get_started/faq/',
    'docker': 'get_started/faq/',
    'conda': 'get_started/faq/',
    'Windows': 'get_started/faq/',
    'macOS': 'get_started/faq/',
    'Colab': 'get_started/faq/',
    'offline': 'get_started/faq/',
    'reproducibility': 'get_started/faq/',
    'troubleshooting': 'get_started/faq/',
    'license': 'get_started/faq/',
    'citation': 'get_started/faq/',
    'FAQ': 'get_started/faq/',
}


def test_search_shows_the_page_that_explains_first(page):
    page.set_viewport_size(dict(width=1280, height=800))
    page.goto(SITE)
    page.locator('[data-md-component=search-query]').first.click()
    first = page.locator('.md-search-result__link').first
    for query, path in ANSWERS.items():
        search_for(page, query)
        address = re.compile(re.escape(SITE + path) + r'(\?|#|$)')
        sync_api.expect(first).to_have_attribute('href', address, timeout=20000)
        assert 'Missing' not in first.inner_text(), query


def search_for(page, query):
    """Search for words all at once, so that no results of their beginnings are shown."""
    page.keyboard.press('Control+A')
    page.keyboard.press('Backspace')
    links = page.locator('.md-search-result__link')
    sync_api.expect(links).to_have_count(0, timeout=20000)
    page.keyboard.insert_text(query)
    page.keyboard.press('End')  # the search waits for a key


def test_search_leads_to_a_page_with_the_word(page):
    page.set_viewport_size(dict(width=1280, height=800))
    page.goto(SITE)
    page.locator('[data-md-component=search-query]').first.click()
    page.keyboard.type('LLMBlockNeck')
    page.locator('.md-search-result__link').first.click()
    page.wait_for_url(lambda url: urlparse(url).path != '/')
    assert 'LLMBlockNeck' in page.locator('article').inner_text()
    assert page.errors == []


def test_reference_has_links_for_roles_and_one_row_of_returns(folder):
    role = re.compile(r':(?:class|func|meth|mod|attr|data|obj|exc):')
    tables_of_returns = []
    for file in folder.rglob('*.html'):
        text = file.read_text()
        assert not role.search(text), file
        assert not re.search(r' [^<>]*::</p>', text), file
        tables_of_returns += re.findall(r'Returns:.*?</table>', text, re.S)
    assert tables_of_returns
    for table in tables_of_returns:
        assert table.count('<tr class="doc-section-item">') == 1
    necks = (folder / 'reference/necks/index.html').read_text()
    assert 'class="autorefs autorefs-internal"' in necks
