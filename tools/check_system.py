"""Say in one line which system library an installed package lacks.

OpenCV is needed by everything, so that a library that it lacks ends the set-up.
open3d is for point clouds only, so that a library that it lacks is worth a note.
"""

import importlib
import importlib.util
import re
import sys

# Shared library -> package of Debian and Ubuntu.
APT = {
    'libusb-1.0': 'libusb-1.0-0',
    'libGL.so': 'libgl1',
    'libEGL': 'libegl1',
    'libgomp': 'libgomp1',
    'libX11': 'libx11-6',
    'libgthread': 'libglib2.0-0',
    'libglib': 'libglib2.0-0',
    'libxcb': 'libxcb1',
    'libSM': 'libsm6',
    'libXext': 'libxext6',
}


def missing_library(module: str) -> str:
    """Return the apt package that importing a module asks for, or ''.

    A module that is not installed asks for none.
    """
    if importlib.util.find_spec(module) is None:
        return ''
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as e:
        for library, package in APT.items():
            if library in str(e):
                return package
        name = re.search(r'lib[\w.+-]+\.so[.\d]*', str(e))
        return f'(the package with {name[0]})' if name else f'({e})'
    return ''


def main() -> None:
    package = missing_library('cv2')
    if package:
        sys.exit(f'error: OpenCV lacks a system library; run: apt-get install {package}')
    package = missing_library('open3d')
    if package:
        print(
            'note: open3d lacks a system library; for point clouds run: '
            f'apt-get install {package} (image and video tasks work '
            'without)'
        )


if __name__ == '__main__':
    main()
