# From a face detector's checkpoint to a model file for the phone, and what was lost on the way.
#
#   make all     the main job: export to ONNX, measure latency and WIDER FACE accuracy, draw faces
#   make test    the tests
#   make help    everything else
#
# Variables, each with a default that works on a fresh clone:
#   VARIANT=retinaface    network (make summary lists them; default: acwface_dcn where the public RetinaFace weights are not at hand)
#   CHECKPOINT=FILE       weights (default: the public RetinaFace file beside the project, else what the project ships)
#   DCN=native            route of the deformable convolutions
#   SIZE="640 dynamic"    input sizes, one artifact each: 640, 480x640 (height x width), dynamic
#   WIDER=ROOT LIST=FILE  WIDER FACE root, and which of its images (default: those beside the project, else sample photographs)
#   LIMIT=N               only the first N images
#   THREADS=1             of the latency measurement
#   OUT=build             where results go
#   PHOTOS="a.jpg b.jpg"  photographs for make detect (default: a portrait that is at hand)
#   TEACHER=FILE          weights that training starts and learns from (default: the public RetinaFace file beside the project)
#   PEOPLE=DIR            photographs without labels for training (default: those beside the project)
#   PYTHON=python3.12     interpreter that .venv is made with (default: the first suitable one found)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:

DATA := ../shared/data
PUBLIC_RETINAFACE := $(wildcard $(DATA)/weights/retinaface_mobilenet025_final.pth)

# What the project itself has weights for, where the public ones are not at hand.
VARIANT ?= $(if $(PUBLIC_RETINAFACE),retinaface,acwface_dcn)
CHECKPOINT ?= $(if $(filter retinaface,$(VARIANT)),$(PUBLIC_RETINAFACE))
DCN ?= native
SIZE ?= 640 dynamic
WIDER ?= $(wildcard $(DATA)/widerface)
LIST ?= $(wildcard $(WIDER)/val/dev_list.txt)
LIMIT ?=
THREADS ?= 1
OUT ?= build
PHOTOS ?=
PEOPLE ?= $(wildcard $(DATA)/people)
TEACHER ?= $(PUBLIC_RETINAFACE)

PY := .venv/bin/python
SPACE := $(subst ,, )
# As a prerequisite. One that does not exist is left for the command to complain of: it says more than make would.
ESCAPED := $(subst $(SPACE),\ ,$(CHECKPOINT))
CHECKPOINT_FILE := $(if $(wildcard $(ESCAPED)),$(ESCAPED))
# The route is part of an artifact's name; a network without deformable layers has none.
ROUTE := $(if $(findstring _dcn,$(VARIANT)),$(DCN),none)
ONNX_ARTIFACTS := $(foreach size,$(SIZE),$(OUT)/artifacts/$(VARIANT)-$(ROUTE)-fp32-$(size)-onnx)

.PHONY: help all setup test test-accuracy lint summary export-onnx bench-onnx detect data train-shipped bench-train lock clean FORCE

help: ## list the targets
	@sed -n '/^#/!q;s/^# \{0,1\}//p;s/^#$$//p' Makefile
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s'|'

all: summary bench-onnx detect ## the main job

setup: .venv/.ready ## make .venv with every package at its locked version

# Suitable: Python 3.12 or 3.13. python3.x may be a pyenv shim that refuses to answer, so every candidate is asked.
.venv/.ready: requirements.lock
	@for python in $(PYTHON) python3.13 python3.12 python3 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[23].*/bin/python; do \
	  if "$$python" -c 'import sys, ensurepip; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "error: no Python 3.12 or 3.13 with venv found; install one (Debian: apt install python3.12-venv; or: pyenv install 3.12) or pass PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	echo "setting up .venv with $$found (a few GB of packages)"; \
	"$$found" -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

test: .venv/.ready ## the tests: fast, no root, no network
	$(PY) -m pytest

test-accuracy: .venv/.ready ## WIDER FACE accuracy of the public weights, torch and ONNX (minutes)
	$(PY) -m pytest -m accuracy

lint: .venv/.ready ## style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

summary: .venv/.ready ## parameters and multiply-accumulates of every network
	$(PY) -m model summary

export-onnx: $(addsuffix /detector.json,$(ONNX_ARTIFACTS)) ## ONNX artifacts of VARIANT, DCN, CHECKPOINT, SIZE

# $* is the size. An artifact is made again when its checkpoint, the code that makes it, or the choice of checkpoint changes.
$(OUT)/artifacts/$(VARIANT)-$(ROUTE)-fp32-%-onnx/detector.json: $(OUT)/choices/$(VARIANT)-$(ROUTE)-onnx $(CHECKPOINT_FILE) $(wildcard model/*.py export/*.py) | .venv/.ready
	$(PY) -m export onnx --variant $(VARIANT) --dcn $(DCN) $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") \
	  $(if $(filter dynamic,$*),--dynamic,--size $(subst x, ,$*)) --out "$(@D)"

$(OUT)/choices/$(VARIANT)-$(ROUTE)-onnx: FORCE
	@mkdir -p "$(@D)"
	@echo "$(CHECKPOINT)" | cmp -s - "$@" || echo "$(CHECKPOINT)" > "$@"

bench-onnx: export-onnx ## size, latency, memory, AP and its drop, of those artifacts
	$(PY) -m runtime_bench run $(ONNX_ARTIFACTS) --threads $(THREADS) --json "$(OUT)/bench/onnx.json" \
	  $(if $(WIDER),--wider "$(WIDER)" $(if $(LIST),--list "$(LIST)")) $(if $(LIMIT),--limit $(LIMIT))

detect: export-onnx ## faces of PHOTOS, drawn, by the first of those artifacts
	$(PY) -m runtime_bench detect $(firstword $(ONNX_ARTIFACTS)) $(PHOTOS) --out "$(OUT)/detect"

data: .venv/.ready ## fetch WIDER FACE (about 4 GB) into WIDER
	$(PY) -m train data "$(or $(WIDER),$(OUT)/widerface)"

# Each step goes on where it was stopped, and those that are done are passed over.
TRAIN := $(OUT)/train
PHOTOGRAPHS = --data "$(WIDER)" $(if $(PEOPLE),--people "$(PEOPLE)")

train-shipped: .venv/.ready ## train the weights that the project ships (hours on two cores)
	@if [ -z "$(WIDER)" ] || [ -z "$(TEACHER)" ]; then echo "error: WIDER=ROOT and TEACHER=FILE (the public RetinaFace weights) are needed" >&2; exit 2; fi
	[ -e "$(TRAIN)/pseudo.jsonl" ] || $(PY) -m train pseudo $(PHOTOGRAPHS) --teacher "$(TEACHER)" --out "$(TRAIN)/pseudo.jsonl"
	train() { \
	  run="$(TRAIN)/$$1"; resume=$$([ ! -e "$$run/state.pt" ] || echo --resume); \
	  $(PY) -m train run --config train/recipes/$$1.toml $(PHOTOGRAPHS) --pseudo "$(TRAIN)/pseudo.jsonl" \
	    --init "$(TEACHER)" --teacher "$(TEACHER)" --out "$$run" $$resume; \
	}; \
	ship() { echo "$(TRAIN)/$$1/$$2.safetensors: copy it to model/weights/$$1.safetensors to ship it"; }; \
	train retinaface; ship retinaface best; \
	for recipe in acwface_dcn acwface; do train $$recipe; ship $$recipe last; done

bench-train: .venv/.ready ## step time of training: torchvision's deformable convolution against ours
	$(PY) -m train bench

lock: ## resolve the packages of pyproject.toml again (needs uv)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.12 --no-header --no-annotate --quiet --output-file requirements.lock

clean: ## delete build/; .venv stays
	rm -rf build
