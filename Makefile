# From a face detector's checkpoint to a model file for the phone, and what was lost on the way.
#
#   make all     the main job: export to ONNX, measure latency and WIDER FACE accuracy, draw faces
#   make test    the tests
#   make help    everything else
#
# Variables, each with a default that works on a fresh clone:
#   VARIANT=retinaface    network (make summary lists them; default: acwface_dcn where the public RetinaFace weights are not at hand)
#   CHECKPOINT=FILE       weights (default: the public RetinaFace file beside the project, else what the project ships)
#   DCN=native            route of the deformable convolutions: native (ONNX, default there), decomposed (default elsewhere), custom,
#                         bounded (TFLite, Core ML)
#   NO_REWRITE="..."      exact rewrites to leave out, or: all
#   PRECISION="fp32 fp16" of TFLite files: fp16 stores weights so; of Core ML files: fp16 computes so too
#   SIZE="640 dynamic"    input sizes, one artifact each: 640, 480x640 (height x width), dynamic
#   WIDER=ROOT LIST=FILE  WIDER FACE root, and which of its images (default: those beside the project, else sample photographs)
#   LIMIT=N               only the first N images
#   CALIBRATION="DIR DIR" photographs that INT8 is calibrated with (default: WIDER's training images, else PEOPLE, else samples);
#   FORMATS="onnx tflite coreml"  what make quantize makes INT8 artifacts for (default: those that have the route)
#   INTEGERS=int8         what make quantize writes: int8; TFLite also int8io (8 bits in and out) and int16 (activations); Core ML also w8
#   METHOD=mse            how ranges are found: mse, percentile, min-max, entropy; RECIPE=FILE layers in float; MAX_DROP=0.5 points of AP
#   THREADS=1             of the latency measurements
#   COMPARE=OLD.json      make bench-...: print what changed since, beyond noise, and fail beyond a limit; RESUME=1 goes on after Ctrl-C
#   MLPERF=1              make bench-...: as many runs as MLPerf Mobile's single-stream scenario asks for (at least 1,024 and 60 s), p90 counts
#   FILE=RECORD           make bench-ios: what the iOS demo's benchmark has shared, or a folder of such
#   PEERS="NAME=FILE ..." make bench-...: public detectors in the same run: YuNet and SCRFD (.onnx), RetinaFace (.pth)
#   OUT=build             where results go
#   PHOTOS="a.jpg b.jpg"  photographs for make detect (default: a portrait that is at hand)
#   TEACHER=FILE          weights that training starts and learns from (default: the public RetinaFace file beside the project)
#   STEPS=N               make train-shipped: so many steps instead of what the recipes say, to try it; make train-compare: of each network (default: 500)
#   PEOPLE=DIR            photographs without labels for training (default: those beside the project)
#   ORT_INCLUDE=DIR LITERT_INCLUDE=DIR  C headers of one's own for make native (default: fetched); ANDROID_NDK=DIR builds for Android too
#   ANDROID_ARTIFACTS="DIR DIR"  what the Android demo gets (default: the TFLite artifacts of the above, and INT8 ones that are there)
#   HARDWARE="cpu gpu npu"  what make bench-android measures on (default: cpu gpu), on the only phone or PHONE=adb:SERIAL
#   ANDROID_JAR=FILE      an SDK's android.jar for make test-android (default: one is made); DEBIAN_MIRROR=URL to fetch from, for iOS too (default: apt's)
#   IOS_ARTIFACTS="DIR DIR"  what the iOS demo gets (default: the Core ML artifacts of the above)
#   FUZZ="image pth" SECONDS=60  kinds of files for make fuzz (default: all), and for how long each
#   SPEED_SIZES="640 320" input sizes of make bench-speed
#   CHECK=1               make readme-numbers: write nothing, fail where a text says something else than its record
#   CHAOS="train detect" TIMES=50 SEED=0  commands for make chaos (default: all), how many moments, and which
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
DCN ?=
NO_REWRITE ?=
PRECISION ?= fp32 fp16
SIZE ?= 640 dynamic
WIDER ?= $(wildcard $(DATA)/widerface)
LIST ?= $(wildcard $(WIDER)/val/dev_list.txt)
LIMIT ?=
THREADS ?= 1
COMPARE ?=
RESUME ?=
MLPERF ?=
FILE ?=
PEERS ?=
BENCH_FLAGS = $(addprefix --peer ,$(PEERS)) $(if $(COMPARE),--compare "$(COMPARE)") $(if $(RESUME),--resume) $(if $(MLPERF),--mlperf)
OUT ?= build
$(if $(word 2,$(OUT)),$(error OUT=$(OUT): make takes no space in a folder that it writes into; choose another))
PHOTOS ?=
PEOPLE ?= $(wildcard $(DATA)/people)
TEACHER ?= $(PUBLIC_RETINAFACE)
CALIBRATION ?= $(or $(wildcard $(WIDER)/train/images),$(PEOPLE))
METHOD ?=
RECIPE ?=
INTEGERS ?=
MAX_DROP ?=

PY := .venv/bin/python
# What an artifact is made again for.
MAKERS := $(wildcard model/*.py export/*.py export/rewrites/*.py)
SPACE := $(subst ,, )
# As a prerequisite. One that does not exist is left for the command to complain of: it says more than make would.
ESCAPED := $(subst $(SPACE),\ ,$(CHECKPOINT))
CHECKPOINT_FILE := $(if $(wildcard $(ESCAPED)),$(ESCAPED))
# The route is part of an artifact's name; a network without deformable layers has none.
ROUTE := $(if $(findstring _dcn,$(VARIANT)),$(or $(DCN),native),none)
FIXED_ROUTE := $(if $(findstring _dcn,$(VARIANT)),$(or $(DCN),decomposed),none)
ONNX_ARTIFACTS := $(foreach size,$(SIZE),$(OUT)/artifacts/$(VARIANT)-$(ROUTE)-fp32-$(size)-onnx)
# TFLite and Core ML files have one size each.
FIXED_SIZE = $(foreach precision,$(PRECISION),$(foreach size,$(filter-out dynamic,$(SIZE)),\
  $(OUT)/artifacts/$(VARIANT)-$(FIXED_ROUTE)-$(precision)-$(size)-$(1)))
TFLITE_ARTIFACTS := $(call FIXED_SIZE,tflite)
COREML_ARTIFACTS := $(call FIXED_SIZE,coreml)
# What exporting does when all is there; an error where nothing was asked for.
REQUIRE_FIXED = @$(if $(strip $(1)),:,echo "error: SIZE=$(SIZE) PRECISION=$(PRECISION) is no file: TFLite and Core ML need a fixed size, as SIZE=640, and fp32 or fp16" >&2; exit 2)

# Appear whole. On Ctrl-C make would delete the description, and the next export would take the rest for somebody's folder.
.PRECIOUS: $(addsuffix /detector.json,$(ONNX_ARTIFACTS) $(TFLITE_ARTIFACTS) $(COREML_ARTIFACTS))

.PHONY: help all setup test test-accuracy golden test-android android-assets test-ios ios-assets lint summary export-onnx bench-onnx export-tflite bench-tflite export-coreml bench-coreml bench bench-ios bench-android require-adb bench-report bench-arm arm-record export-all quantize sensitivity bench-speed detect native bench-kernel data train-shipped train-compare bench-train fuzz readme-numbers chaos lock clean FORCE

help: ## list the targets
	@sed -n '/^#/!q;s/^# \{0,1\}//p;s/^#$$//p' Makefile
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s'|'

all: summary bench-onnx detect ## the main job

setup: .venv/.ready ## make .venv with every package at its locked version

# Suitable: Python 3.12 or 3.13. python3.x may be a pyenv shim that refuses to answer, so every candidate is asked. One make at a time: a lock
# that ends with the shell that holds it, however that ends.
.venv/.ready: requirements.lock
	@for python in $(PYTHON) python3.13 python3.12 python3 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[23].*/bin/python; do \
	  if "$$python" -c 'import sys, ensurepip; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "error: no Python 3.12 or 3.13 with venv found; install one (Debian: apt install python3.12-venv; or: pyenv install 3.12) or pass PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	exec 9<requirements.lock; \
	lock() { "$$found" -c "import fcntl; fcntl.flock(9, fcntl.LOCK_EX | $$1)" 2>/dev/null; }; \
	lock fcntl.LOCK_NB || { echo "another make sets up .venv; waiting" >&2; lock 0; }; \
	if [ $@ -nt requirements.lock ]; then exit 0; fi; \
	echo "setting up .venv with $$found (a few GB of packages)"; \
	"$$found" -m venv .venv; \
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock; \
	touch $@

test: .venv/.ready ## the tests: fast, no root, no network
	$(PY) -m pytest

fuzz: .venv/.ready ## feed damaged and hostile files to everything that reads files, SECONDS=60 for each kind; needs pip install atheris
	$(PY) -m tests.fuzz $(FUZZ) --seconds $(or $(SECONDS),60)

chaos: .venv/.ready ## end commands at random moments, TIMES=50, and look whether anything half-written is taken for whole (an hour)
	$(PY) -m tests.chaos $(CHAOS) --times $(or $(TIMES),50) --seed $(or $(SEED),0)

test-accuracy: .venv/.ready ## WIDER FACE accuracy of the public weights, torch and ONNX (minutes)
	$(PY) -m pytest -m accuracy

golden: .venv/.ready ## write the vectors that Kotlin and Swift replay (tests/golden)
	$(PY) -m tests.golden.make_golden

# These two need no .venv: Python's standard library is enough.
test-android: ## compile, test and package the Android demo, without Google's repositories (minutes)
	$(firstword $(wildcard $(PY)) python3) -m android_demo.tools.check

ANDROID_ARTIFACTS ?= $(TFLITE_ARTIFACTS) $(wildcard $(OUT)/artifacts/*-int8-*-tflite)

android-assets: $(addsuffix /detector.json,$(filter $(TFLITE_ARTIFACTS),$(ANDROID_ARTIFACTS))) | .venv/.ready ## put ANDROID_ARTIFACTS into the Android demo
	$(PY) -m demo_tools.assets android $(ANDROID_ARTIFACTS)

test-ios: ## test the iOS demo's core with Swift, check the rest of it, without a Mac; needs root (minutes)
	$(firstword $(wildcard $(PY)) python3) -m ios_demo.tools.check

IOS_ARTIFACTS ?= $(COREML_ARTIFACTS)

ios-assets: $(addsuffix /detector.json,$(filter $(COREML_ARTIFACTS),$(IOS_ARTIFACTS))) | .venv/.ready ## put IOS_ARTIFACTS into the iOS demo
	$(PY) -m demo_tools.assets ios $(IOS_ARTIFACTS)

lint: .venv/.ready ## style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

summary: .venv/.ready ## parameters and multiply-accumulates of every network
	$(PY) -m model summary

export-onnx: $(addsuffix /detector.json,$(ONNX_ARTIFACTS)) ## ONNX artifacts of VARIANT, DCN, CHECKPOINT, SIZE

# $* is the size. An artifact is made again when its checkpoint, the code that makes it, or the choice of checkpoint changes.
$(OUT)/artifacts/$(VARIANT)-$(ROUTE)-fp32-%-onnx/detector.json: $(OUT)/choices/$(VARIANT)-$(ROUTE)-onnx $(CHECKPOINT_FILE) $(MAKERS) | .venv/.ready $(if $(filter custom,$(ROUTE)),native)
	$(PY) -m export onnx --variant $(VARIANT) $(if $(DCN),--dcn $(DCN)) $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") \
	  $(if $(filter dynamic,$*),--dynamic,--size $(subst x, ,$*)) $(addprefix --no-rewrite ,$(NO_REWRITE)) --out "$(@D)"

$(OUT)/choices/$(VARIANT)-$(ROUTE)-onnx $(addprefix $(OUT)/choices/$(VARIANT)-$(FIXED_ROUTE)-,tflite coreml): FORCE
	@mkdir -p "$(@D)"
	@echo "$(CHECKPOINT) $(NO_REWRITE)" | cmp -s - "$@" || echo "$(CHECKPOINT) $(NO_REWRITE)" > "$@"

# Every route of the deformable networks, the exports that were not rewritten, and RetinaFace, side by side.
DEFORMABLE := acwface_dcn acwface_dcn_lite
SPEED_SIZES := 640 320
SPEED_ARTIFACTS = $(foreach size,$(SPEED_SIZES),$(addprefix $(OUT)/artifacts/, \
  retinaface-none-fp32-$(size)-onnx $(foreach variant,$(DEFORMABLE),$(foreach route,native decomposed custom,$(variant)-$(route)-fp32-$(size)-onnx)) \
  retinaface-none-fp32-$(size)-tflite $(foreach variant,$(DEFORMABLE),$(foreach route,decomposed custom,$(variant)-$(route)-fp32-$(size)-tflite))))
SPEED_NAIVE = $(foreach size,$(SPEED_SIZES),$(addprefix $(OUT)/naive/artifacts/, \
  $(foreach route,native decomposed,acwface_dcn-$(route)-fp32-$(size)-onnx) acwface_dcn-grid-sample-fp32-$(size)-tflite))
SPEED_EXPORT = $(MAKE) --no-print-directory PRECISION=fp32 SIZE="$(SPEED_SIZES)"

bench-speed: .venv/.ready ## latency of every route against naive exports and RetinaFace, in one run (minutes)
	for format in onnx tflite; do \
	  $(SPEED_EXPORT) export-$$format VARIANT=retinaface CHECKPOINT="$(PUBLIC_RETINAFACE)"; done
	file() { $(SPEED_EXPORT) export-$$1 VARIANT=$$2 CHECKPOINT= DCN=$$3 $${@:4}; }; \
	for variant in $(DEFORMABLE); do \
	  for route in native decomposed custom; do file onnx $$variant $$route; done; \
	  for route in decomposed custom; do file tflite $$variant $$route; done; done; \
	for route in native decomposed; do file onnx acwface_dcn $$route NO_REWRITE=all OUT="$(OUT)/naive"; done; \
	file tflite acwface_dcn grid-sample NO_REWRITE=all OUT="$(OUT)/naive"
	$(PY) -m runtime_bench compare $(SPEED_ARTIFACTS) --naive $(SPEED_NAIVE) --json "$(OUT)/bench/speed.json"

bench-onnx: export-onnx ## size, latency, memory, AP and its drop, of those artifacts
	$(PY) -m runtime_bench run $(ONNX_ARTIFACTS) --threads $(THREADS) --json "$(OUT)/bench/onnx.json" $(BENCH_FLAGS) \
	  $(if $(WIDER),--wider "$(WIDER)" $(if $(LIST),--list "$(LIST)")) $(if $(LIMIT),--limit $(LIMIT))

export-tflite: $(addsuffix /detector.json,$(TFLITE_ARTIFACTS)) ## TFLite artifacts of VARIANT, DCN, CHECKPOINT, PRECISION, SIZE
	$(call REQUIRE_FIXED,$(TFLITE_ARTIFACTS))

# $* is precision-size.
$(OUT)/artifacts/$(VARIANT)-$(FIXED_ROUTE)-%-tflite/detector.json: $(OUT)/choices/$(VARIANT)-$(FIXED_ROUTE)-tflite $(CHECKPOINT_FILE) $(MAKERS) | .venv/.ready $(if $(filter custom,$(FIXED_ROUTE)),native)
	$(PY) -m export tflite --variant $(VARIANT) $(if $(DCN),--dcn $(DCN)) $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") \
	  --precision $(firstword $(subst -, ,$*)) --size $(subst x, ,$(lastword $(subst -, ,$*))) $(addprefix --no-rewrite ,$(NO_REWRITE)) --out "$(@D)"

bench-tflite: export-tflite ## the same for those
	$(PY) -m runtime_bench run $(TFLITE_ARTIFACTS) --threads $(THREADS) --json "$(OUT)/bench/tflite.json" $(BENCH_FLAGS) \
	  $(if $(WIDER),--wider "$(WIDER)" $(if $(LIST),--list "$(LIST)")) $(if $(LIMIT),--limit $(LIMIT))

export-coreml: $(addsuffix /detector.json,$(COREML_ARTIFACTS)) ## Core ML artifacts of VARIANT, DCN, CHECKPOINT, PRECISION, SIZE
	$(call REQUIRE_FIXED,$(COREML_ARTIFACTS))

$(OUT)/artifacts/$(VARIANT)-$(FIXED_ROUTE)-%-coreml/detector.json: $(OUT)/choices/$(VARIANT)-$(FIXED_ROUTE)-coreml $(CHECKPOINT_FILE) $(MAKERS) | .venv/.ready
	$(PY) -m export coreml --variant $(VARIANT) $(if $(DCN),--dcn $(DCN)) $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") \
	  --precision $(firstword $(subst -, ,$*)) --size $(subst x, ,$(lastword $(subst -, ,$*))) $(addprefix --no-rewrite ,$(NO_REWRITE)) --out "$(@D)"

bench-coreml: export-coreml ## the same for those; off macOS an evaluator runs them, and latency is not measured
	$(PY) -m runtime_bench run $(COREML_ARTIFACTS) --threads $(THREADS) --json "$(OUT)/bench/coreml.json" $(BENCH_FLAGS) \
	  $(if $(WIDER),--wider "$(WIDER)" $(if $(LIST),--list "$(LIST)")) $(if $(LIMIT),--limit $(LIMIT))

# FILE is quoted, not split: phones' records come by way of folders such as "My Drive".
bench-ios: .venv/.ready ## add FILE, the record that the iOS demo's benchmark has shared, to the report; on macOS Core ML runs the artifacts too
	[ -n "$(FILE)" ] || [ "$$(uname)" = Darwin ] || { echo "error: FILE=RECORD is needed, shared from the iOS demo's benchmark screen; only macOS runs Core ML itself" >&2; exit 2; }
	[ -z "$(FILE)" ] || $(PY) -m runtime_bench import "$(FILE)" --artifacts "$(OUT)/artifacts" --json "$(OUT)/bench/ios.json"
	[ "$$(uname)" != Darwin ] || $(MAKE) --no-print-directory bench-coreml
	$(MAKE) --no-print-directory bench-report

HARDWARE ?=
PHONE ?=

bench-android: require-adb $(addsuffix /detector.json,$(filter $(TFLITE_ARTIFACTS),$(ANDROID_ARTIFACTS))) | .venv/.ready ## latency of ANDROID_ARTIFACTS on a phone's HARDWARE, by the Android demo, which has to be installed
	$(PY) -m runtime_bench app $(ANDROID_ARTIFACTS) $(if $(HARDWARE),--hardware $(HARDWARE)) $(if $(PHONE),--device "$(PHONE)") \
	  --threads $(THREADS) --json "$(OUT)/bench/android-app.json" $(if $(RESUME),--resume)

# Before minutes of export.
require-adb:
	@command -v adb >/dev/null || { echo "error: adb is not installed (Debian: apt install adb; or Android's platform-tools)" >&2; exit 2; }

bench: bench-onnx bench-tflite bench-coreml bench-arm bench-report ## all of these and the report

bench-report: .venv/.ready ## build/bench/report.html, .md and .csv of the records that are there
	@[ -n "$(RECORDS)" ] || { echo "error: no records in $(OUT)/bench; run: make bench-onnx" >&2; exit 2; }
	$(PY) -m runtime_bench report $(RECORDS) --out "$(OUT)/bench" $(if $(WIDER),--wider "$(WIDER)")

RECORDS = $(wildcard $(foreach name,onnx tflite coreml arm ios android android-app,$(OUT)/bench/$(name).json))

# Photographs of 320 pixels: an emulated processor takes seconds for each.
ARM := qemu:cortex-a53 qemu:cortex-a76 qemu:cortex-a710

bench-arm: .venv/.ready ## drift of the TFLite and ONNX files of acwface_dcn or VARIANT on emulated ARM processors; no times
	$(MAKE) --no-print-directory arm-record VARIANT=$(ALL_VARIANT) SIZE=320 PRECISION=fp32

arm-record: export-onnx export-tflite
	$(PY) -m runtime_bench run $(ONNX_ARTIFACTS) $(TFLITE_ARTIFACTS) $(foreach format,onnx tflite,$(wildcard $(OUT)/artifacts/$(VARIANT)-*-int8-$(SIZE)-$(format))) \
	  $(addprefix --device ,$(ARM)) --json "$(OUT)/bench/arm.json" $(BENCH_FLAGS) --limit $(or $(LIMIT),12) $(if $(WIDER),--wider "$(WIDER)" $(if $(LIST),--list "$(LIST)"))

# Every format, route and precision of one network. A route that fails is a row of the table with its reason, and an exit code at the end.
ALL_VARIANT := $(if $(filter command environment,$(firstword $(origin VARIANT))),$(VARIANT),acwface_dcn)
ALL_SIZE := $(filter-out dynamic,$(SIZE))
ALL_KINDS := $(if $(findstring _dcn,$(ALL_VARIANT)),\
  $(foreach route,native decomposed custom,onnx:$(route):fp32) $(foreach route,decomposed bounded custom,$(foreach precision,fp32 fp16,tflite:$(route):$(precision) coreml:$(route):$(precision))),\
  onnx:none:fp32 $(foreach precision,fp32 fp16,tflite:none:$(precision) coreml:none:$(precision)))
ALL_EXPORTS := $(foreach size,$(ALL_SIZE),$(addsuffix :$(size),$(ALL_KINDS)))
export_name = $(ALL_VARIANT)-$(word 2,$1)-$(word 3,$1)-$(word 4,$1)-$(word 1,$1)
ALL_NAMES := $(foreach row,$(ALL_EXPORTS),$(call export_name,$(subst :, ,$(row))))

export-all: .venv/.ready ## every export of acwface_dcn or VARIANT: parity, size, latency and AP drop in one table (an hour; LIMIT=50 for less)
	@rm -rf "$(OUT)/failures"; mkdir -p "$(OUT)/failures"
	for row in $(ALL_EXPORTS); do \
	  IFS=: read -r format route precision size <<<"$$row"; log="$(OUT)/failures/$(ALL_VARIANT)-$$route-$$precision-$$size-$$format.txt"; \
	  if $(MAKE) --no-print-directory export-$$format VARIANT=$(ALL_VARIANT) DCN=$${route#none} PRECISION=$$precision SIZE=$$size 2>&1 | tee "$$log"; \
	  then rm "$$log"; fi; done
	$(PY) -m runtime_bench exports $(addprefix $(OUT)/artifacts/,$(ALL_NAMES)) --failures "$(OUT)/failures" --threads $(THREADS) \
	  --json "$(OUT)/bench/exports.json" $(if $(WIDER),--wider "$(WIDER)" $(if $(LIST),--list "$(LIST)")) $(if $(LIMIT),--limit $(LIMIT))

# Float and integer in one run; an artifact that loses more than it may is not written.
FORMATS ?= $(if $(filter bounded,$(DCN)),,onnx) $(if $(filter native,$(DCN)),,tflite) $(if $(filter native custom,$(DCN)),,coreml)
$(if $(filter-out onnx tflite coreml,$(FORMATS)),$(error FORMATS=$(strip $(FORMATS)): onnx, tflite and coreml are known))
INT8_SOURCES = $(if $(filter onnx,$(FORMATS)),$(ONNX_ARTIFACTS)) $(foreach format,$(filter-out onnx,$(FORMATS)),\
  $(foreach size,$(filter-out dynamic,$(SIZE)),$(OUT)/artifacts/$(VARIANT)-$(FIXED_ROUTE)-fp32-$(size)-$(format)))
CALIBRATE = $(if $(CALIBRATION),--photos $(CALIBRATION)) $(if $(METHOD),--method $(METHOD))

quantize: $(addsuffix /detector.json,$(INT8_SOURCES)) ## INT8 artifacts of VARIANT, DCN, SIZE, FORMATS, and what that costs
	$(PY) -m quantize run $(INT8_SOURCES) $(CALIBRATE) $(if $(INTEGERS),--precision $(INTEGERS)) $(if $(RECIPE),--recipe "$(RECIPE)") $(if $(MAX_DROP),--max-drop $(MAX_DROP)) \
	  --threads $(THREADS) --json "$(OUT)/bench/int8.json" \
	  $(if $(WIDER),--wider "$(WIDER)" $(if $(LIST),--list "$(LIST)")) $(if $(LIMIT),--limit $(LIMIT))

sensitivity: $(addsuffix /detector.json,$(INT8_SOURCES)) ## which layers suffer from INT8, and recipes that keep them in float
	for artifact in $(INT8_SOURCES); do $(PY) -m quantize sensitivity "$$artifact" $(CALIBRATE) --out "$(OUT)/recipes/$$(basename "$$artifact").json"; done

detect: export-onnx ## faces of PHOTOS, drawn, by the first of those artifacts
	$(PY) -m runtime_bench detect $(firstword $(ONNX_ARTIFACTS)) $(PHOTOS) --out "$(OUT)/detect"

native: .venv/.ready ## the deformable kernel's libraries for ONNX Runtime and LiteRT, into build/native
	$(PY) -m export.kernel build $(if $(ORT_INCLUDE),--ort-include "$(ORT_INCLUDE)") $(if $(LITERT_INCLUDE),--litert-include "$(LITERT_INCLUDE)")

bench-kernel: native ## the kernel against ONNX Runtime's DeformConv; its ARM instructions, where an emulator is installed
	@mkdir -p "$(OUT)/bench"
	$(PY) -m export.kernel bench --threads $(THREADS) | tee "$(OUT)/bench/kernel.txt"
	@if command -v qemu-aarch64 >/dev/null; then $(PY) -m export.kernel count | tee "$(OUT)/bench/kernel-arm.txt"; else echo "ARM instructions: not counted, no qemu-aarch64"; fi

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
	  $(PY) -m train run --config train/recipes/$$2.toml $(PHOTOGRAPHS) --pseudo "$(TRAIN)/pseudo.jsonl" \
	    --init "$${3:-$(TEACHER)}" --teacher "$${4:-$(TEACHER)}" $${5:+--variant $$5} --out "$$run" $$resume $(if $(STEPS),--steps $(STEPS)); \
	}; \
	refit() { run="$(TRAIN)/$$1"; to="$$run/refit-$$2.safetensors"; \
	  [ -e "$$to" ] || $(PY) -m train refit "$$run/$$2.safetensors" --data "$(WIDER)" --out "$$to"; \
	  echo "$$to: copy it to model/weights/$$3.safetensors to ship it"; }; \
	train retinaface retinaface; refit retinaface best retinaface; \
	train acwface acwface; \
	train acwface-small acwface_dcn-small "$(TRAIN)/acwface/last.safetensors" "$(TRAIN)/retinaface/best.safetensors" acwface; \
	refit acwface-small blend-0.5 acwface; \
	train acwface_dcn acwface_dcn; \
	train acwface_dcn-small acwface_dcn-small "$(TRAIN)/acwface_dcn/last.safetensors" "$(TRAIN)/retinaface/best.safetensors"; \
	refit acwface_dcn-small blend-0.5 acwface_dcn; \
	train acwface_dcn-mosaic acwface_dcn-mosaic "$(TRAIN)/acwface_dcn-small/last.safetensors" "$(TRAIN)/retinaface/best.safetensors"; \
	refit acwface_dcn-mosaic blend-0.5 acwface_dcn-mosaic; \
	train acwface_dcn_lite-1 acwface_dcn_lite "$(TRAIN)/acwface_dcn/last.safetensors"; \
	train acwface_dcn_lite-2 acwface_dcn_lite "$(TRAIN)/acwface_dcn_lite-1/last.safetensors"; \
	train acwface_dcn_lite acwface_dcn_lite-last "$(TRAIN)/acwface_dcn_lite-2/last.safetensors" "$(TRAIN)/retinaface/best.safetensors"; \
	refit acwface_dcn_lite best acwface_dcn_lite

COMPARED := retinaface acwface acwface_dcn biretina

train-compare: .venv/.ready ## what the networks reach by one short recipe of STEPS=500, from the same weights on the same photographs
	@if [ -z "$(WIDER)" ] || [ -z "$(TEACHER)" ]; then echo "error: WIDER=ROOT and TEACHER=FILE (the public RetinaFace weights) are needed" >&2; exit 2; fi
	for network in $(COMPARED); do \
	  recipe=$$([ $$network = retinaface ] && echo acwface || echo $$network); run="$(TRAIN)/compare-$(or $(STEPS),500)/$$network"; \
	  resume=$$([ ! -e "$$run/state.pt" ] || echo --resume); \
	  $(PY) -m train run --config train/recipes/$$recipe.toml --variant $$network --steps $(or $(STEPS),500) $(PHOTOGRAPHS) \
	    --init "$(TEACHER)" --teacher "$(TEACHER)" --out "$$run" --no-eval $$resume; \
	done
	for network in $(COMPARED); do \
	  echo "$$network:"; $(PY) -m runtime_bench evaluate "$(TRAIN)/compare-$(or $(STEPS),500)/$$network/last.safetensors" \
	    --wider "$(WIDER)" $(if $(LIST),--list "$(LIST)") $(if $(LIMIT),--limit $(LIMIT)); \
	done

bench-train: .venv/.ready ## step time of training: torchvision's deformable convolution against ours
	$(PY) -m train bench

readme-numbers: .venv/.ready ## write the figures of README.md and docs/ from docs/records, and from OUT/bench where newer; CHECK=1 only compares
	@mkdir -p "$(OUT)/bench"
	[ -n "$(CHECK)" ] || $(PY) -m model summary --json > "$(OUT)/bench/networks.json"
	$(PY) -m docs.numbers "$(OUT)/bench" $(if $(CHECK),--check)

lock: ## resolve the packages of pyproject.toml again (needs uv)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.12 --no-header --no-annotate --quiet --output-file requirements.lock

clean: ## delete build/; .venv stays
	rm -rf build
