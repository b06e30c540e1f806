# Everything sets itself up in .venv; Python 3.11 or newer is all that must be there.
PYTHON ?= python3
BIN = .venv/bin
# Packages come without bytecode, most of which nobody imports: Python writes it where it does.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo demo-eval finetuned app test test-full torture notebooks lint

# Pre-trains on built-in videos and shows what came out: minutes on two CPU cores.
demo: .venv/installed
	$(BIN)/python train.py --config configs/quickstart.py

# Pre-trains on built-in videos, fine-tunes from that and from nothing, and shows both accuracies.
demo-eval: finetuned
	$(BIN)/python eval.py --config configs/quickstart_finetune.py --config.init_from=scratch \
		--workdir runs/quickstart_scratch
	$(BIN)/python -m videomae_jax.evaluation.compare runs/quickstart_finetune runs/quickstart_scratch

finetuned: .venv/installed
	$(BIN)/python train.py --config configs/quickstart.py:goal=moves --workdir runs/quickstart_moves
	$(BIN)/python eval.py --config configs/quickstart_finetune.py --config.init_from=runs/quickstart_moves \
		--workdir runs/quickstart_finetune

# Shows both models at work on a page for the browser; trains them first where they are missing.
app: .venv/installed-app runs/quickstart/model runs/quickstart_finetune/model
	$(BIN)/python -m videomae_jax.app --classifier runs/quickstart_finetune --pretrained runs/quickstart

# A finished run leaves its model, and stays as it is when the package changes.
runs/quickstart/model: | .venv/installed
	$(MAKE) demo

runs/quickstart_finetune/model: | .venv/installed
	$(MAKE) finetuned

# What CI runs. Most of its time is compiling, which takes half as long with what is left out here.
test: export JAX_DISABLE_MOST_OPTIMIZATIONS = 1
test: export XLA_FLAGS = --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
test: .venv/installed-test .venv/libtpu lint
	$(BIN)/python -m pytest -m "not full" --numprocesses 2 --dist worksteal

# And what is slow, such as compiling large models for TPUs.
test-full: .venv/installed-test .venv/installed-app .venv/libtpu lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Kills a run 20 times, at random moments, and compares what becomes of it with an undisturbed one.
torture: .venv/installed-test
	$(BIN)/python -m pytest tests/test_torture.py

# Runs the notebooks anew, in place.
notebooks: .venv/installed-test
	$(BIN)/python notebooks/run.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

# The compiler for TPUs; for Linux on x86 alone. Beside the environment and not in it, where JAX would look for a TPU.
.venv/libtpu: .venv/installed
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --no-deps --target $@ libtpu \
		|| echo "No libtpu: what compiles for TPUs is not tested."

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

.venv/installed-app: .venv/installed
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable ".[app]"
	touch $@
