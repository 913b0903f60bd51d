# What a reader does, one short target each. The work itself is in cmxlib: see `.venv/bin/cmx --help`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
CMX = .venv/bin/cmx
# Without a GPU, `make TORCH=cpu setup` takes torch's CPU build, by uv's word for it, and leaves 3 GB of CUDA libraries.
TORCH ?=
# A Python that was removed or replaced takes its environment with it.
$(shell test ! -e .venv/ready || .venv/bin/python -c "" 2>/dev/null || rm -f .venv/ready)
export JUPYTER_PREFER_ENV_PATH = 1

.PHONY: help setup book small paper lab test site pdf test-browser bench versions reliability pins release clean

help: ## print what there is (the default)
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

# Killed in the middle, uv leaves a package whose files are not all there, and trusts it afterwards. So the file
# .venv/ready is removed before anything is installed and made last, and an environment without it is made anew.
setup: .venv/ready ## make or complete .venv, which every target below does first

# What is installed has the SHA-256 that requirements.hashes.txt names for it, uv itself and the builder included. Of
# torch's CPU build, which comes from elsewhere, no sums are kept: there, versions alone are asked for.
.venv/ready: requirements.hashes.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found: install one, or name it with make PYTHON=/its/path."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PYTHON=$(PYTHON) is older than Python 3.11, which the book needs.")'
	@echo "Installing what requirements.txt names into .venv (the first time: a few minutes, several GB)"
	@test -e $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.hashes.txt > .venv/uv.txt
	@.venv/bin/python -m pip install --quiet --requirement .venv/uv.txt
	@.venv/bin/uv pip install --compile-bytecode --python .venv/bin/python --build-constraint requirements.hashes.txt \
		--constraint $(if $(TORCH),requirements.txt --torch-backend $(TORCH),requirements.hashes.txt) \
		-e '.[book,files,onnx,serve,test,sweep,site,browser]'
	@touch $@

book: setup ## run every chapter at quick scale on the embedded data (minutes)
	@$(CMX) book --scale quick

small: setup ## measure the tables at small scale on CIFAR-10, then run every chapter on it (hours)
	@$(CMX) study --scale small && $(CMX) book --scale small

paper: setup ## the same at paper scale (wants a GPU; a day on two cores)
	@$(CMX) study --scale paper && $(CMX) book --scale paper

lab: setup ## open JupyterLab at the first chapter
	.venv/bin/jupyter lab notebooks/00_start_here.ipynb

test: export OMP_NUM_THREADS ?= 1
test: setup ## lint, then the unit tests, chapters and solutions, in two processes of one thread each
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy
	.venv/bin/pytest tests notebooks --nbval -n 2 --dist loadfile

site: setup ## build the web edition from the saved notebooks, in build/site (seconds)
	.venv/bin/sphinx-build --quiet --fail-on-warning --keep-going -c site notebooks build/site

pdf: setup ## print the web edition as one PDF, build/book.pdf, by Chromium (minutes)
	.venv/bin/sphinx-build --quiet --fail-on-warning --keep-going -b singlehtml -c site notebooks build/singlehtml
	chromium --headless --no-sandbox --disable-gpu --no-pdf-header-footer --virtual-time-budget=60000 \
		--print-to-pdf=build/book.pdf build/singlehtml/index.html

test-browser: setup ## try chapters and site in Chromium, with screenshots in build/screenshots (minutes)
	.venv/bin/pytest tests/browser -rs

bench: setup ## time training, evaluation and encryption on this machine
	@$(CMX) study --scale paper --only benchmarks

versions: setup ## run the core's tests with the oldest versions allowed, then the newest (half an hour, GBs)
	@for found in lowest-direct highest; do \
		test -e build/$$found || .venv/bin/uv venv --quiet --python .venv/bin/python build/$$found || exit 1; \
		.venv/bin/uv pip install --quiet --upgrade --python build/$$found/bin/python --resolution $$found \
			-e ".[book,files,onnx,test]" || exit 1; \
		build/$$found/bin/python -c "import sys, torch; print(f'{sys.argv[1]}: torch {torch.__version__}', flush=True)" $$found; \
		build/$$found/bin/python -m pytest -q -p no:cacheprovider tests/lock tests/learn tests/files tests/attacks \
			tests/trust/test_bad_input.py tests/trust/test_bad_values.py tests/trust/test_fuzz.py || exit 1; \
	done

reliability: setup ## write RELIABILITY.md: faults, wrong calls, changed files, secrets, memory (half an hour)
	.venv/bin/python -m tests.trust

pins: setup ## renew the tested versions, and their hashes, in requirements.txt and requirements.hashes.txt
	.venv/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --fork-strategy fewest --upgrade \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.hashes.txt
	sed 's/ \\$$//; /--hash/d' requirements.hashes.txt > requirements.txt

release: ## ask what still stands against a release: rows of no commit, an unfinished citation
	@! grep -l "+changes" results/*/*.csv | sed 's/$$/ has rows of code that no commit holds: measure them anew/' | grep .
	@for name in date-released repository-code; do grep -q "^$$name: " CITATION.cff || \
		{ echo "CITATION.cff lacks $$name: fill it in"; exit 1; }; done

clean: ## remove what quick runs and tools left; results/, figures/ and .venv stay
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
