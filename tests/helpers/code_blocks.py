"""Code blocks of the documentation, and how the tests treat each.

A comment before a block says what becomes of it::

    <!-- run
    train.py --cfg-options train_cfg.max_epochs=1
    CHECKPOINT=work_dirs/vit-demo_minilm_digits/epoch_1.pth
    -->

runs it; ``<!-- run by PAGE -->`` says that PAGE, from the root, runs the same commands.
``script.py WORDS`` adds words to every call of that script, or of the command ``lm4ve
script``, to make it short, and ``OLD=NEW`` replaces a text. ``<!-- not run: reason
-->`` says why it cannot run here. Every shell block needs one of them. A Python block
without a comment is a fragment of a config, which must parse and name registered types.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _pages() -> list[str]:
    guides = []
    for folder in ('get_started', 'guides', 'extend'):
        guides.extend((ROOT / 'docs' / folder).glob('*.md'))
    names = sorted(str(guide.relative_to(ROOT)) for guide in guides)
    return ['README.md', 'CONTRIBUTING.md', *names]


#: The pages whose blocks are tested, from the root.
PAGES = _pages()

_BLOCK = re.compile(
    r'(?:<!--\s*(?P<note>(?:not )?run\b[^>]*?)\s*-->\n+)?'
    r'^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```',
    re.M | re.S,
)


@dataclass
class Block:
    """One fenced block.

    Attributes:
        line (int): Where its fence stands, from 1.
        language (str): 'bash', 'python', ...
        code (str): What is in it, without indentation.
        note (str): The text of the comment before it, or ''.
    """

    line: int
    language: str
    code: str
    note: str = ''

    @property
    def runs(self) -> bool:
        return bool(re.match(r'run(?! by)', self.note))

    @property
    def run_by(self) -> str:
        """The page that runs the same commands, or ''."""
        return self.note[7:].strip() if self.note.startswith('run by ') else ''

    @property
    def commands(self) -> list[str]:
        """The commands as they stand, without comments."""
        lines = self.code.replace('\\\n', ' ').splitlines()
        return [' '.join(line.split(' #')[0].split()) for line in lines if line]

    @property
    def reason(self) -> str:
        """Why it does not run, or ''."""
        return self.note[7:].strip(' :\n') if self.note.startswith('not run') else ''

    def script(self) -> str:
        """Return the shell commands as they are to be run."""
        code = self.code.replace('\\\n', ' ')
        for addition in self.note.splitlines()[1:]:
            addition = addition.strip()
            script, _, words = addition.partition(' ')
            if script.endswith(('.py', '.sh')):
                code = _with_words(code, script, words)
            elif '=' in addition:
                name, _, value = addition.partition('=')
                code = code.replace(name, value)
        return code


def _with_words(code: str, script: str, words: str) -> str:
    """Add words to each line that calls a script, before its comment."""
    call = rf'/{re.escape(script)}|lm4ve {Path(script).stem}\b'
    line = re.compile(rf'^([^#\n]*(?:{call})[^#\n]*?)( *#.*)?$', re.M)
    return line.sub(lambda found: f'{found[1]} {words}', code)


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = (ROOT / page).read_text()
    blocks = []
    for match in _BLOCK.finditer(text):
        lines = match['code'].splitlines(keepends=True)
        code = ''.join(line.removeprefix(match['indent']) for line in lines)
        number = text.count('\n', 0, match.start('language')) + 1
        note = match['note'] or ''
        blocks.append(Block(number, match['language'], code, note))
    return blocks
