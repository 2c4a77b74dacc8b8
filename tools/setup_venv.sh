#!/usr/bin/env bash
# Make a virtual environment with everything in requirements.txt, or say in one
# line what the machine lacks.
#   tools/setup_venv.sh [FOLDER]      PYTHON=/path/to/python picks the Python
set -eu
cd "$(dirname "$0")/.."
venv=${1:-.venv}

supported() { # can this Python be run, and is it 3.11 to 3.14?
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}
makes_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

found="" bare=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
  supported "$candidate" || continue
  if makes_venvs "$candidate"; then found=$candidate; break; fi
  bare=${bare:-$candidate}
done
if [ -z "$found" ] && [ -n "$bare" ]; then
  echo "error: $bare cannot make virtual environments; run: apt-get install python$(version "$bare")-venv" >&2
  exit 1
fi
if [ -z "$found" ]; then
  have=$(${PYTHON:-python3} --version 2>&1 | tail -n 1 || true)
  echo "error: lm4ve needs Python 3.11, 3.12, 3.13 or 3.14; found: ${have:-none}. Install one (Debian 12 and 13, Ubuntu 24.04: apt-get install python3 python3-venv; elsewhere: pyenv, uv or conda), or name one: make setup PYTHON=/path/to/python3.11" >&2
  exit 1
fi

if ! [ -x "$venv/bin/python" ] || [ "$(version "$venv/bin/python")" != "$(version "$found")" ]; then
  echo "Making $venv with $("$found" --version) ($(command -v "$found"))"
  "$found" -m venv --clear "$venv"
fi
echo "Installing requirements.txt: some minutes at first"
"$venv/bin/python" -m pip --disable-pip-version-check install -r requirements.txt
if ! "$venv/bin/python" -c 'import cv2'; then
  echo "error: OpenCV lacks a system library; run: apt-get install libgl1 libglib2.0-0" >&2
  exit 1
fi
if ! answer=$("$venv/bin/python" -c 'from lm4ve.geometry.open3d_library import load_open3d; load_open3d()' 2>&1); then
  echo "error: $(echo "$answer" | tail -n 1)" >&2
  exit 1
fi
