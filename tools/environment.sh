# Sourced by the shell scripts: where `python` has no lm4ve, take the one of `make setup`.
if ! python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("lm4ve") is None)' 2>/dev/null; then
  venv="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin"
  if [ -x "$venv/python" ]; then PATH="$venv:$PATH"; fi
fi
