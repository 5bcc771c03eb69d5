# Two commands do everything on a fresh machine:  make demo   and   make test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What the project is developed with; users install whatever the ranges in pyproject.toml allow.
TORCH ?= torch==2.14.1 torchvision==0.29.1
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# What some tests run against: a broker, a camera server, a browser, a scraper. Without one of them its tests say so and are skipped.
DEBIAN := mosquitto prometheus chromium chromium-driver fonts-dejavu-core \
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gir1.2-gst-rtsp-server-1.0 python3-gi

.PHONY: demo test lint unit wheel device-pythons peers clean

demo: $(VENV)/.demo
	$(BIN)/orinspect demo

test: lint unit wheel

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo 'orinspect needs Python 3.10 to 3.13: run  make PYTHON=python3.12 ...'; exit 2; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml
	@echo 'installing orinspect with its training and export parts (some minutes, once)'
	$(PIP) $(TORCH)
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo 'installing the development tools'
	$(PIP) --editable '.[dev]'
	touch $@

# pycuda is a source package that wants a CUDA toolkit; this builds it without one, for the fake driver of the tests.
$(VENV)/.pycuda: $(VENV)/.dev tests/fake_cuda/build_pycuda.py
	@if command -v g++ >/dev/null; then \
	  echo 'building pycuda for the tests of the TensorRT backend (some minutes, once)' && \
	  $(BIN)/python tests/fake_cuda/build_pycuda.py && touch $@; \
	else echo 'NOT TESTED: the TensorRT backend, because there is no g++ to build pycuda with (apt install g++)'; fi

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/.pycuda
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
	  echo 'NOT TESTED: the dashboard in a browser, because there is no chromium (apt install chromium chromium-driver)'
	@command -v promtool >/dev/null || \
	  echo 'NOT TESTED: /metrics with a real Prometheus, because there is none (apt install prometheus)'
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --cov --cov-report term:skip-covered

# The built wheel in a clean venv without torch and onnx: what a board gets.
wheel: $(VENV)/.dev
	$(BIN)/python tests/wheel.py $(PYTHON)

# The same on the Pythons of JetPack 6 and 7, where they are installed:  make device-pythons PYTHONS='python3.10 python3.12'
device-pythons: $(VENV)/.dev
	for python in $(PYTHONS); do $(BIN)/python tests/wheel.py $$python || exit 1; done

# As root, on Debian or Ubuntu.
peers:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(DEBIAN) >/dev/null

clean:
	rm -rf $(VENV) .venv-wheel* demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
