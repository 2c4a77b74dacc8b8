"""Name the apt package of a system library that OpenCV lacks, which every task needs."""

import re
import sys

# Shared library -> package of Debian and Ubuntu.
APT = {
    'libGL.so': 'libgl1',
    'libgthread': 'libglib2.0-0',
    'libglib': 'libglib2.0-0',
    'libX11': 'libx11-6',
    'libxcb': 'libxcb1',
    'libSM': 'libsm6',
    'libXext': 'libxext6',
}


def main() -> None:
    try:
        import cv2  # noqa: F401
    except (ImportError, OSError) as e:
        packages = [package for library, package in APT.items() if library in str(e)]
        name = re.search(r'lib[\w.+-]+\.so[.\d]*', str(e))
        missing = packages[0] if packages else f'(the package with {name[0] if name else e})'
        sys.exit(f'error: OpenCV lacks a system library; run: apt-get install {missing}')


if __name__ == '__main__':
    main()
