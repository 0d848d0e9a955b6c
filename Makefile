# Two commands for everyone (`make demo`, `make test`); each sets up what it needs.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test shapes slow kernels oracle lint types docs wheel lowest clean

demo: .venv/installed
	$(BIN)/python -m examples.demo demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The tests of numbers once more, with every shape and type in a signature checked at each call. It
# takes about twice the time.
SHAPES := tests/comparison tests/evaluation tests/exporters tests/geometry tests/models tests/nn \
	tests/parity tests/rules tests/runs tests/scenes tests/sources tests/stream tests/summary \
	tests/training
shapes: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --jaxtyping-packages=ttt3r,beartype.beartype $(SHAPES)

slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

# The numeric tests under other kernels than this processor would choose.
NUMERIC := tests/geometry tests/models tests/nn tests/parity tests/regression
KERNELS := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ATEN_CPU_CAPABILITY=avx512 \
	ONEDNN_MAX_CPU_ISA=AVX2 ONEDNN_MAX_CPU_ISA=AVX512_CORE ONEDNN_MAX_CPU_ISA=AVX512_CORE_AMX \
	MKL_ENABLE_INSTRUCTIONS=SSE4_2 MKL_ENABLE_INSTRUCTIONS=AVX2 OMP_NUM_THREADS=1 \
	OMP_NUM_THREADS=2 TTT3R_LINEAR=product TTT3R_LINEAR=convolution

kernels: .venv/installed-dev
	for setting in $(KERNELS); do echo "$$setting" && \
		env "$$setting" $(BIN)/python -m pytest -q $(NUMERIC) || exit 1; done

# Against programs of others, which nothing that ships may import.
oracle: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --group oracle
	$(BIN)/python -m pytest tests/evaluation/metrics/test_oracle.py tests/exporters/test_oracle.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile

types: .venv/installed-dev
	$(BIN)/pyright

# The site of the documentation, in site/; a broken link or name is an error.
docs: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --group docs
	PYTHONPATH=.ci $(BIN)/zensical build --strict --clean

# Builds wheel and sdist, and runs the wheel in a virtual environment of its own.
wheel:
	.ci/wheel

# The tests with each dependency at its lowest version; fetches several GB (CUDA builds of torch).
lowest:
	.ci/lowest

# torch goes first and pinned: left to a range, pip may fetch gigabytes of another build.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

clean:
	rm -rf .venv demo runs site
