"""Build the sdist and the wheel, check them, and use the wheel in a new environment.

    python tools/dev/build_release.py --out dist --repository https://github.com/OWNER/lm4ve

``make release`` runs it. The wheel is built from the sdist, so that each shows what the other
lacks, and is installed outside of the clone, where it lists, trains and tests a demo. README's
relative links become absolute in the long description; without a repository, their words stay.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path
from sysconfig import get_path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from lm4ve.errors import UserError
from lm4ve.runner.command_line import run_tool
from lm4ve.version import __version__

ROOT = Path(__file__).resolve().parents[2]
STAGED = ('projects', 'configs', 'requirements', 'pyproject.toml', 'README.md', 'LICENSE')
#: What a wheel has beside its modules.
NEEDED = ['py.typed', 'tasks/image/__init__.pyi', 'tasks/base/digits.npz', 'analysis/page.html']
NEEDED += ['zoo/weights/scores.json', 'zoo/.mim/configs/lm4ve/vit-demo_minilm_digits.py']
DEMO = 'vit-demo_minilm_digits'
_SDIST = 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])'
_LINK = re.compile(r'(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)')


def run(*words: object, cwd: Path) -> None:
    subprocess.run([*map(str, words)], cwd=cwd, check=True)


def absolute_links(text: str, repository: str) -> str:
    """Return a README whose links and pictures work on any site."""

    def replace(link: re.Match) -> str:
        picture, words, path = link.groups()
        if not repository:
            return '' if picture else words
        kind = 'raw' if picture else 'blob'
        return f'{picture}[{words}]({repository}/{kind}/v{__version__}/{path})'

    return _LINK.sub(replace, text)


def build(out: Path, repository: str, folder: Path) -> Path:
    """Write the sdist and, from it, the wheel; return the wheel."""
    folder.mkdir()
    for name in STAGED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        ignored = dict(ignore=shutil.ignore_patterns('__pycache__', '*.egg-info'), symlinks=True)
        copy(ROOT / name, folder / name, **(ignored if copy is shutil.copytree else {}))
    readme = folder / 'README.md'
    readme.write_text(absolute_links(readme.read_text(), repository))
    run(sys.executable, '-c', _SDIST, out, cwd=folder)
    (sdist,) = out.glob('*.tar.gz')
    flags = '--quiet --no-deps --no-build-isolation -w'.split()
    run(sys.executable, '-m', 'pip', 'wheel', *flags, out, sdist, cwd=out)
    (wheel,) = out.glob('*.whl')
    return wheel


def check_wheel(path: Path) -> None:
    """Refuse a wheel that lacks a file or a field, or whose description has a relative link."""
    with ZipFile(path) as wheel:
        names = wheel.namelist()
        (about,) = (n for n in names if n.endswith('.dist-info/METADATA'))
        fields = Parser().parsestr(wheel.read(about).decode())
    missing = [n for n in NEEDED if f'lm4ve/{n}' not in names]
    missing += [f for f in ('Summary', 'License-Expression', 'Requires-Python') if f not in fields]
    relative = [link.group() for link in _LINK.finditer(fields.get_payload())]
    if missing or relative or fields['Version'] != __version__:
        raise UserError(f'{path.name}: version {fields["Version"]}, {missing=}, {relative=}.')


def use_wheel(wheel: Path, folder: Path, shared: bool) -> None:
    """Install a wheel in a new environment and run its commands there."""
    venv.create(folder / 'venv', with_pip=True, symlinks=True)
    python = folder / 'venv/bin/python'
    if shared:
        (site,) = (folder / 'venv').glob('lib/python*/site-packages')
        (site / 'shared.pth').write_text(get_path('purelib'))
    install = (python, '-m', 'pip', 'install', '--quiet')
    run(*install, *(['--no-deps', wheel] if shared else [f'{wheel}[image,demo]']), cwd=folder)
    place = 'import lm4ve, sys; assert lm4ve.__file__.startswith(sys.prefix), lm4ve.__file__'
    run(python, '-I', '-c', place, cwd=folder)
    command = (python, '-I', '-m', 'lm4ve.commands')
    run(*command, 'list', '--task', 'image', cwd=folder)
    run(*command, 'train', DEMO, '--cfg-options', 'train_cfg.max_epochs=2', cwd=folder)
    flags = ('--out', 'scores.json', '--out-item', 'metrics')
    run(*command, 'test', DEMO, 'pretrained', *flags, cwd=folder)
    found = json.loads((folder / 'scores.json').read_text())
    with ZipFile(wheel) as content:
        recorded = json.loads(content.read('lm4ve/zoo/weights/scores.json'))[DEMO]
    if any(abs(found[k] - v) > 0.2 for k, v in recorded.items()):
        raise UserError(f'{DEMO} reaches {found}; {recorded} is recorded.')


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--out', type=Path, default=Path('dist'), help='empty or new folder of the two files')
    add('--repository', default='', help='address that links to files and pictures begin with')
    add('--shared-packages', action='store_true', help="see this environment's other packages")
    args = parser.parse_args(argv)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UserError(f"--out='{out}' is not empty.")
    with TemporaryDirectory() as folder:
        wheel = build(out, args.repository.rstrip('/'), Path(folder, 'source'))
        check_wheel(wheel)
        use_wheel(wheel, Path(folder), args.shared_packages)
    print(*sorted(out.iterdir()), sep='\n')


if __name__ == '__main__':
    run_tool(main)
