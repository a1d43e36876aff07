# Build, run and test lbfast.  `make` alone lists the targets.
#
# Everything lives in .venv and build/; nothing is installed outside the tree, except Debian
# packages that are missing, and those only by root (packaging/debian-needs).  Stamps name what has
# been done, so a second `make run` starts at once.

PYTHON  ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
             $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV    := .venv
PY      := $(VENV)/bin/python
PIP     := $(PY) -m pip --disable-pip-version-check --no-input install --quiet
STAMPS  := $(VENV)/.stamps
# `make test ARGS="tests/unit -k stick"` runs a part; `make test DEBUG=1` tests the debug build.
ARGS    ?=
DEBUG   ?= $(if $(filter debug,$(MAKECMDGOALS)),1)
FLAVOUR := $(if $(filter sanitize,$(MAKECMDGOALS)),sanitize,$(if $(filter 1,$(DEBUG)),debug,release))

# What runs under the sanitizers: all of the C functions, and processes whose workers go through every phase.
# Without the test that forks beside threads which allocate memory: the sanitizer's allocator may be locked in the child.
SANITIZED := -k "not every_instruction and not relay_faults and not killed_under_load" tests/cython tests/fuzz $(patsubst %,tests/proc/test_%.py,relay_flow relay_half_close relay_model \
  relay_reset connect_proxy connect_redispatch limits_crash pick_race)
FUZZED  := proxy config control_line control_answer channel candidate probe_answer certificate heartbeat state_files
SECONDS ?= 60

BUILT   := build/built-$(FLAVOUR)
SOURCES := setup.py $(wildcard lbfast/*.pyx lbfast/*.pxd lbfast/*.h)
SHIM    := $(wildcard tests/_cshim.pyx tests/*.pxi)

# A virtual environment that came from elsewhere (a copied tree) names other places: make it anew.
ifeq ($(shell grep -qsF "$(CURDIR)/$(VENV)" $(VENV)/bin/activate && $(PY) -c pass 2>/dev/null && echo ok),)
  $(shell rm -rf $(STAMPS))
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run build debug test faults sanitize fuzz bench locust failover lost soak check clean

help:  ## this list
	@sed -nE 's/^([a-z]+):.*  ## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

run: build  ## build, then `lbfast demo`: three HTTPS servers behind 127.0.0.1:8443, until Ctrl-C
	@exec $(VENV)/bin/lbfast demo

build: $(STAMPS)/lbfast $(BUILT)  ## .venv/bin/lbfast, with the compiled modules

debug: build  ## the same with bounds checks, debug counters and fault doors (`make build` switches back)

test: $(STAMPS)/test $(STAMPS)/lbfast $(BUILT)-test  ## install what the tests need and run them all (ARGS=...)
	@packaging/debian-needs test
ifeq ($(strip $(ARGS)),)
	@# Two at a time: tests on processes file by file, because those of a file share their boxes.
	@# In CI the source tests are left to `make check`, which follows.
	@failed=0; $(PY) -m pytest -q -n 2 tests/unit $(if $(CI),,tests/test_source.py) || failed=1; \
	  $(PY) -m pytest -n 2 --dist loadfile -m "not alone" --ignore=tests/unit --ignore=tests/test_source.py || failed=1; \
	  $(PY) -m pytest -q -m alone tests/proc || failed=1; exit $$failed
else
	$(PY) -m pytest $(ARGS)
endif

sanitize: $(STAMPS)/test $(STAMPS)/lbfast $(BUILT)-test  ## the compiled modules under AddressSanitizer and UndefinedBehaviorSanitizer: their tests and part of those on processes (ARGS=...)
	@grep -qs __asan_init lbfast/_splice.*.so || { echo "the modules were not built with the sanitizers" >&2; exit 1; }
	@packaging/sanitized $(PY) -m pytest -q $(or $(ARGS),$(SANITIZED))

fuzz: $(STAMPS)/test $(STAMPS)/fuzz $(STAMPS)/lbfast $(BUILT)  ## every parser fed from outside, a minute each, guided by coverage (SECONDS=..., TARGET=...)
	@for target in $(or $(TARGET),$(FUZZED)); do echo "== $$target"; $(PY) tests/fuzz/run.py $$target $(SECONDS) || exit 1; done

faults: $(STAMPS)/test $(STAMPS)/lbfast $(BUILT)-test  ## processes killed, disks full, servers gone: what it cost, measured here (two minutes)
	$(PY) -m pytest -q -n0 tests/faults $(ARGS)

bench: $(STAMPS)/bench $(STAMPS)/test $(STAMPS)/lbfast $(BUILT)-test  ## lbfast beside HAProxy, nginx and Envoy, and its parts beside plain Python: ten minutes (QUICK=1: two)
	@bench/needs
	$(PY) -m bench.rig $(if $(QUICK),--quick)
	$(PY) -m pytest bench$(if $(QUICK),/test_parts.py) --benchmark-autosave --benchmark-compare --benchmark-columns=min,median,stddev $(ARGS)

locust: $(STAMPS)/bench $(STAMPS)/lbfast $(BUILT)  ## HTTPS and TCP users through a virtual service, fifteen seconds without a screen (ARGS=...)
	@bench/needs
	$(PY) -m bench.locust_run $(ARGS)

failover: $(STAMPS)/test $(STAMPS)/lbfast $(BUILT)  ## every fault of a pair on network namespaces, as root: seconds without service (ARGS="--turns 5")
	$(PY) bench/failover.py $(ARGS)

lost: $(STAMPS)/test $(STAMPS)/lbfast $(BUILT)  ## edits, upgrades and deaths under a load that checks every byte, lbfast beside HAProxy, as root: five minutes
	$(PY) bench/nothing_lost.py $(ARGS)

soak: $(STAMPS)/test $(STAMPS)/lbfast $(BUILT)  ## a day compressed into twenty minutes, as root: memory, descriptors, pipes and tables must be flat (SECONDS=...)
	$(PY) bench/soak.py --seconds $(if $(filter file,$(origin SECONDS)),1200,$(SECONDS)) $(ARGS)

check: $(STAMPS)/check $(STAMPS)/test $(STAMPS)/lbfast $(BUILT)-test  ## ruff, mypy, cython-lint and the source tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/cython-lint $(wildcard lbfast/*.pyx lbfast/*.pxd tests/*.pyx)
	$(PY) -m pytest -q -n 2 tests/test_source.py

clean:  ## remove everything that was built, the virtual environment too
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f lbfast/*.c lbfast/*.so tests/*.c tests/*.so
	find lbfast tests bench -name __pycache__ -prune -exec rm -rf {} +

# --- how -----------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@packaging/debian-needs build "$(PYTHON)"
	@python="$(PYTHON)"; $${python:-python3} -m venv --clear $(VENV)
	$(PIP) `$(PY) packaging/requires.py`
	@mkdir -p $(STAMPS) && touch $@

# Editable: the program in .venv/bin runs the tree; compiled modules are built beside their sources.
$(STAMPS)/lbfast: pyproject.toml $(STAMPS)/venv | $(BUILT)
	@# It builds modules beside their sources, too: of this flavour, or they would pass for it.
	$(flavoured) $(PIP) --no-build-isolation --editable .
	@touch $@

$(STAMPS)/test $(STAMPS)/fuzz $(STAMPS)/bench $(STAMPS)/check: $(STAMPS)/%: pyproject.toml $(STAMPS)/venv
	$(PIP) `$(PY) packaging/requires.py $*`
	@touch $@

$(BUILT): $(SOURCES) | $(STAMPS)/venv
	@$(compile)
	@touch $@

# With the tests' doors to C functions.
$(BUILT)-test: $(BUILT) $(SHIM)
	@export LBFAST_TEST_EXT=$(if $(SHIM),1,0); $(compile)
	@touch $@

# setup.py keeps each flavour in its own directory and copies a module beside its source when the copy is older.
# build/flavour says whose copies those are; copies of another flavour, or of nobody knows which, go first.
flavoured = export LBFAST_DEBUG=$(if $(filter release,$(FLAVOUR)),0,1) LBFAST_SANITIZE=$(if $(filter sanitize,$(FLAVOUR)),1,0);
define compile
set -e; mkdir -p build; $(flavoured) \
if [ "`cat build/flavour 2>/dev/null`" != $(FLAVOUR) ]; then \
    rm -f build/flavour build/built-* lbfast/*.so tests/*.so; \
fi; \
echo "compiling ($(FLAVOUR))"; \
$(PY) setup.py --quiet build_ext --inplace; \
echo $(FLAVOUR) > build/flavour
endef
