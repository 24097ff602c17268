# `make demo` and `make test` set everything up on a fresh machine: Python 3.11 or later, make and a C library.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
# Two processes, each with a Ray and an S3 server of its own: most of a test's time is waiting for one of them.
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo picture test test-slow check clean

# The stamp is written last: an installation that was cut short is begun again.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/python jobs/demo.py

# README's picture, from an unpicked run.
picture: demo
	$(BIN)/python -c "from PIL import Image; Image.open('runs/demo/gallery.png').save('docs/gallery.jpg', quality=85)"

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow $(PARALLEL)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/guards.py

clean:
	rm -rf .venv runs build *.egg-info
