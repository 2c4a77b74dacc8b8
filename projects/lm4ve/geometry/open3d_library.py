"""The one place that imports open3d.

open3d takes more than a second to import, so the first function that needs it imports
it. It also links several libraries of the system. The one that machines lack most
often, libusb, is loaded from a package of PyPI before; for another one that is missing,
the error names the package that has it.
"""

import ctypes
import functools
import importlib.util
import re
from pathlib import Path
from types import ModuleType

from lm4ve.errors import UserError

_LIBUSB = 'libusb-1.0.so.0'
#: Packages of Debian and Ubuntu with the libraries of the system that open3d links.
_APT_PACKAGES = {
    'libEGL': 'libegl1',
    'libGL': 'libgl1',
    'libX11': 'libx11-6',
    'libgomp': 'libgomp1',
    'libidn2': 'libidn2-0',
    'libudev': 'libudev1',
    'libusb-1': 'libusb-1.0-0',
}


@functools.cache
def load_open3d() -> ModuleType:
    """Import open3d.

    Returns:
        ModuleType: The package ``open3d``, which prints errors only.

    Raises:
        UserError: It is not installed, or a library of the system is missing.
    """
    _load_libusb()
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise UserError(
            f'open3d cannot be imported: {error}. Fix: {_advice(error)}.'
        ) from error
    # It prints warnings to the standard output. What matters raises an error here.
    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    return open3d


def _load_libusb() -> None:
    """Load libusb, which open3d links, from the package libusb-package if the system has none."""
    try:
        ctypes.CDLL(_LIBUSB)
        return
    except OSError:
        pass
    package = importlib.util.find_spec('libusb_package')
    if package is None or package.origin is None:
        # The error of importing open3d will name the library.
        return
    file = Path(package.origin).with_name('libusb-1.0.so')
    if file.is_file():
        # Under its own name, libusb-1.0.so.0, by which open3d then finds it.
        ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)


def _advice(error: Exception) -> str:
    """Return how to install what an import of open3d lacks."""
    pattern = r'(lib[\w.+-]+?)\.so[.\d]*: cannot open shared object file'
    missing = re.match(pattern, str(error))
    if missing is None:
        return 'pip install open3d-cpu libusb-package'
    library = missing[1]
    if library.startswith('libusb'):
        return 'pip install libusb-package'
    for beginning, package in _APT_PACKAGES.items():
        if library.startswith(beginning):
            return f'on Debian or Ubuntu: apt-get install {package}'
    return f"install the library '{library}' of the system"
