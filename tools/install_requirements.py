"""Install requirements.txt into this environment and say how far the work is.

pip prints hundreds of lines or, with ``--quiet``, nothing for minutes. This script
prints each large download and the count of installed packages, and keeps pip's full
output in ``install.log`` in the environment's folder.
"""

import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

PIP = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'install']
LOG = Path(sys.prefix, 'install.log')
SITE = Path(sysconfig.get_path('purelib'))
LIVE = sys.stdout.isatty()
#: Files below this size are downloaded in a moment, so they get no line.
LARGE_BYTES = 20e6


def show(text: str, milestone: bool = False) -> None:
    """Rewrite the last line of a terminal; a milestone stays, and is a line anywhere."""
    if LIVE:
        print(f'\r\033[K{text}', end='\n' if milestone else '', flush=True)
    elif milestone:
        print(text, flush=True)


def install(requirements: str) -> int:
    """Run pip, show what it does, and return its exit code."""
    command = [*PIP, '--progress-bar', 'raw', '-r', requirements]
    name = ''
    with (
        LOG.open('w') as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as pip,
    ):
        for line in pip.stdout:
            if done := re.match(r'\s*Progress (\d+) of (\d+)', line):
                show_download(name, int(done[1]), int(done[2]))
                continue
            log.write(line)
            if collecting := re.match(r'Collecting ([\w.-]+)', line):
                name = collecting[1]
                show(f'Looking up {name}')
            elif downloading := re.match(r'\s*Downloading (\S+) \((.+)\)', line):
                name = downloading[1].split('-')[0].rsplit('/')[-1]
            elif line.startswith('Installing collected packages:'):
                show_installation(pip, line.count(',') + 1)
    return pip.returncode


def show_download(name: str, current: int, total: int) -> None:
    """Show how much of a large file has arrived; a whole one is a milestone."""
    if total >= LARGE_BYTES:
        text = f'Downloading {name}: {current / 1e6:.0f} of {total / 1e6:.0f} MB'
        show(text, milestone=current == total)


def show_installation(pip, total: int) -> None:
    """Count the packages that pip unpacks, until it is done."""
    before, shown = len(list(SITE.glob('*.dist-info'))), -1
    while pip.poll() is None:
        # pip removes an older version before it writes the newer one.
        count = max(0, min(total, len(list(SITE.glob('*.dist-info'))) - before))
        step = count * 10 // total
        text = f'Installing: {count} of {total} packages'
        show(text, milestone=not LIVE and step != shown)
        shown = step
        time.sleep(0.5)


def main() -> None:
    print(f'Installing requirements.txt: some minutes at first. Full output: {LOG}')
    # Older releases do not report the progress of a download to a pipe.
    subprocess.run([*PIP, '--quiet', 'pip>=24.1'], check=True)
    code = install('requirements.txt')
    if code:
        print(*LOG.read_text().splitlines()[-30:], sep='\n', file=sys.stderr)
        sys.exit(f'error: pip failed (exit code {code}); its full output: {LOG}')
    show('Installed.', milestone=True)


if __name__ == '__main__':
    main()
