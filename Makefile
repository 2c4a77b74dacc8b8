# Two commands on a fresh machine: `make demo` and `make test`.
# Another Python: `make demo PYTHON=/path/to/python3.11`.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint clean setup

demo: $(STAMP)
	$(BIN)/python tools/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/codespell

setup: $(STAMP)

$(STAMP): requirements.txt $(wildcard requirements/*.txt) pyproject.toml tools/setup_venv.sh
	PYTHON="$(PYTHON)" bash tools/setup_venv.sh $(VENV)
	touch $@

clean:
	rm -rf $(VENV) work_dirs
