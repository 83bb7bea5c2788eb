# Everything a newcomer needs works from a bare clone with python3.11+ and nothing else:
#   make serve   serves the bundled encoders on 127.0.0.1:8001 (gRPC) and 127.0.0.1:8002 (metrics)
#   make test    lint, types, all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help serve test lint types protos clean

help: ## Show the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"birnn-serving needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12 ...") if v < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# Serving installs no torch; on a CPU no CUDA packages either.
$(VENV)/serve.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e '.[service,cpu]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e '.[service,cpu,export,loadtest,bulk,dev]'
	@touch $@ $(VENV)/serve.stamp

serve: $(VENV)/serve.stamp ## Serve the bundled encoders (ARGS="--grpc-port 9001" passes options on).
	$(BIN)/birnn serve --models models $(ARGS)

test: lint types $(VENV)/dev.stamp ## Lint, type-check and run every test.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(VENV)/dev.stamp ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp ## Check types.
	$(BIN)/mypy

# Old generators on purpose: generated code demands a runtime at least as new as its generator.
protos: | $(BIN)/python ## Write the stubs in birnn/ anew from protos/.
	$(PYTHON) -m venv $(VENV)-protos
	$(VENV)-protos/bin/python -m pip install --quiet 'grpcio-tools==1.73.1' 'mypy-protobuf==3.6.0' 'setuptools<80'
	PATH="$(CURDIR)/$(VENV)-protos/bin:$$PATH" $(VENV)-protos/bin/python -m grpc_tools.protoc -I protos --python_out=. \
	  --grpc_python_out=. --mypy_out=. --mypy_grpc_out=. protos/birnn/v1/encoder.proto protos/birnn/openinference/inference.proto

clean: ## Remove the virtual environments and caches.
	rm -rf $(VENV) $(VENV)-protos build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
