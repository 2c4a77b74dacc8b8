#!/usr/bin/env bash
# Make a virtual environment with everything in requirements.txt, or say in one
# line what the machine lacks.
#   tools/setup_venv.sh [FOLDER]      PYTHON=/path/to/python picks the Python
set -eu
cd "$(dirname "$0")/.."
venv=${1:-.venv}

supported() { # is this a Python that can be run, of version 3.10 to 3.12?
  "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null
}

found=""
for candidate in ${PYTHON:-python3.12 python3.11 python3.10 python3 python}; do
  if supported "$candidate"; then found=$candidate; break; fi
done
if [ -z "$found" ]; then
  have=$(${PYTHON:-python3} --version 2>&1 | tail -n 1 || true)
  echo "error: lm4ve needs Python 3.10, 3.11 or 3.12 (open3d and decord have no wheels for others); found: ${have:-none}. Install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv; elsewhere: pyenv, uv or conda) and run: make demo PYTHON=/path/to/python3.11" >&2
  exit 1
fi
if ! "$found" -c 'import ensurepip, venv' 2>/dev/null; then
  version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "error: $found cannot make virtual environments; run: apt-get install python$version-venv" >&2
  exit 1
fi

[ -x "$venv/bin/python" ] && supported "$venv/bin/python" || "$found" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
"$venv/bin/python" tools/check_system.py
