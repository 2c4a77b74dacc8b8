"""Build the sdist and the wheel, check them, and use the wheel in a new environment.

    python tools/dev/build_release.py --out dist --repository https://github.com/OWNER/lm4ve

``make release`` runs it. The wheel is built from the sdist, so that each shows what the
other lacks, and is installed outside of the clone, where it lists, trains and tests a
demo. README's relative links become absolute in the long description; without a
repository, their words stay.
"""

import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path
from sysconfig import get_path
from tempfile import TemporaryDirectory

from lm4ve.errors import UserError, check
from lm4ve.runner.command_line import build_parser, run_tool
from lm4ve.version import __version__

ROOT = Path(__file__).resolve().parents[2]
#: What a wheel has beside its modules.
NEEDED = [
    'py.typed',
    'tasks/image/__init__.pyi',
    'demo_data/digits.npz',
    'analysis/page.html',
    'zoo/weights/scores.json',
    'zoo/.mim/configs/lm4ve/vit-demo_minilm_digits.py',
]
DEMO = 'vit-demo_minilm_digits'
#: Python code that writes the sdist of the folder it runs in to its argument.
_BUILD_SDIST = (
    'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])'
)
_LINK = re.compile(r'(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)')


def run(*words: object, cwd: Path, stdout: int | None = None) -> None:
    """Run a command in a folder.

    Raises:
        subprocess.CalledProcessError: It fails.
    """
    command = [str(word) for word in words]
    subprocess.run(command, cwd=cwd, stdout=stdout, check=True)


def absolute_links(text: str, repository: str) -> str:
    """Return a README whose links and pictures work on any site."""

    def replace(link: re.Match) -> str:
        mark, words, path = link.groups()
        is_picture = mark == '!'
        if repository:
            kind = 'raw' if is_picture else 'blob'
            return f'{mark}[{words}]({repository}/{kind}/v{__version__}/{path})'
        return '' if is_picture else words

    return _LINK.sub(replace, text)


def build(out: Path, repository: str, folder: Path) -> Path:
    """Write the sdist of the last commit and, from it, the wheel; return the wheel.

    Args:
        out (Path): Gets both files; empty so far.
        repository (str): The address for README's links, or '' to leave their words.
        folder (Path): Becomes a temporary copy of the commit, beside its archive.
    """
    run('git', 'archive', '--output', f'{folder}.tar', 'HEAD', cwd=ROOT)
    shutil.unpack_archive(f'{folder}.tar', folder)
    readme = folder / 'README.md'
    readme.write_text(absolute_links(readme.read_text(), repository))
    run(sys.executable, '-c', _BUILD_SDIST, out, cwd=folder, stdout=subprocess.DEVNULL)
    (sdist,) = out.glob('*.tar.gz')
    pip_wheel = [sys.executable, '-m', 'pip', 'wheel']
    flags = ['--quiet', '--no-deps', '--no-build-isolation']
    run(*pip_wheel, *flags, '--wheel-dir', out, sdist, cwd=out)
    (wheel,) = out.glob('*.whl')
    return wheel


def check_wheel(path: Path) -> None:
    """Refuse a wheel that lacks a file or a field, or whose description has a relative link."""
    (wheel,) = metadata.distributions(path=[str(path)])
    files = {str(file) for file in wheel.files}
    fields = wheel.metadata
    missing = [name for name in NEEDED if f'lm4ve/{name}' not in files]
    for field in ('Summary', 'License-Expression'):
        if field not in fields:
            missing.append(field)
    relative = [link.group() for link in _LINK.finditer(fields.get_payload())]
    if missing or relative or fields['Version'] != __version__:
        raise UserError(
            f'{path.name}: version {fields["Version"]}, {missing=}, {relative=}.'
        )


def use_wheel(wheel: Path, folder: Path, shared: bool) -> None:
    """Install a wheel in a new environment and run its commands there.

    Args:
        wheel (Path): The wheel.
        folder (Path): An empty folder.
        shared (bool): Take other packages from this environment.
    """
    venv.create(folder / 'venv', with_pip=True)
    python = folder / 'venv/bin/python'
    (site,) = (folder / 'venv').glob('lib/python*/site-packages')
    pip = (python, '-m', 'pip', 'install', '--quiet')
    if shared:
        (site / 'shared.pth').write_text(get_path('purelib'))
        run(*pip, '--no-deps', wheel, cwd=folder)
    else:
        run(*pip, f'{wheel}[image,demo]', cwd=folder)
    place = 'import lm4ve, sys; assert lm4ve.__file__.startswith(sys.prefix), lm4ve.__file__'
    run(python, '-I', '-c', place, cwd=folder)
    lm4ve = (python, '-I', '-m', 'lm4ve.commands')
    run(*lm4ve, 'list', '--task', 'image', cwd=folder)
    run(*lm4ve, 'train', DEMO, '--cfg-options', 'train_cfg.max_epochs=2', cwd=folder)
    run(*lm4ve, 'test', DEMO, 'pretrained', cwd=folder)


def main(argv: list[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('dist'),
        help='new or empty folder of the two files',
    )
    parser.add_argument(
        '--repository',
        default='',
        help='address that links to files and pictures begin with',
    )
    parser.add_argument(
        '--shared-packages',
        action='store_true',
        help="see this environment's other packages",
    )
    args = parser.parse_args(argv)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    check(f"The number of files in '{out}'", len(list(out.iterdir())), most=0)
    with TemporaryDirectory() as folder:
        wheel = build(out, args.repository.rstrip('/'), Path(folder, 'source'))
        check_wheel(wheel)
        use_wheel(wheel, Path(folder), args.shared_packages)
    for path in sorted(out.iterdir()):
        print(path)


if __name__ == '__main__':
    run_tool(main)
