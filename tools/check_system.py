"""Name the apt package of a system library that OpenCV lacks, which every task needs."""

import sys

# Shared library -> package of Debian and Ubuntu.
APT = {'libGL.so': 'libgl1', 'libgthread': 'libglib2.0-0', 'libglib': 'libglib2.0-0'}


def main() -> None:
    try:
        import cv2  # noqa: F401
    except (ImportError, OSError) as e:
        package = next((p for library, p in APT.items() if library in str(e)), f'(that of {e})')
        sys.exit(f'error: OpenCV lacks a system library; run: apt-get install {package}')


if __name__ == '__main__':
    main()
