# `make demo` and `make test` work on a fresh machine: each sets up what it needs.
# As root, missing Debian packages are installed; otherwise the one command to run is printed.

PYTHON ?= python3
VENV ?= .venv
PREFIX ?= /usr/local
BIN = $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: demo test lint types contracts install uninstall clean

demo: $(VENV)/.ready
	@tools/system-packages demo
	@$(BIN)/python tools/demo.py

test: $(VENV)/.ready-dev
	@tools/system-packages test
	$(BIN)/python -m pytest -n 2 -m "not slow" $(PYTEST_ARGS)

lint: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.ready-dev
	$(BIN)/mypy

contracts: $(VENV)/.ready-dev
	PYTHONPATH=tools $(BIN)/lint-imports

$(VENV)/bin/python:
	@tools/system-packages python $(PYTHON)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.ready-dev: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.ready

# For `mount -t fuse.xnfs`, fstab lines and `fsck -t xnfs`: mount(8) looks for its helpers in /sbin
# only. Installs into an environment of its own and links the commands and man pages.
install:
	@tools/system-packages demo
	$(PYTHON) -m venv $(PREFIX)/lib/xnfs
	$(PREFIX)/lib/xnfs/bin/python -m pip install --quiet --disable-pip-version-check .
	install -d $(PREFIX)/bin $(PREFIX)/sbin $(PREFIX)/share/man/man1 $(PREFIX)/share/man/man8
	ln -sf $(PREFIX)/lib/xnfs/bin/xnfs $(PREFIX)/bin/xnfs
	for c in mkfs.xnfs mount.xnfs umount.xnfs fsck.xnfs dumpfs.xnfs debugfs.xnfs; do \
	    ln -sf $(PREFIX)/lib/xnfs/bin/$$c $(PREFIX)/sbin/$$c || exit 1; done
	for c in mount.fuse.xnfs umount.fuse.xnfs fsck.xnfs mkfs.xnfs; do \
	    ln -sf $(PREFIX)/lib/xnfs/bin/$$c /sbin/$$c || exit 1; done
	install -m 644 man/*.1 $(PREFIX)/share/man/man1
	install -m 644 man/*.8 $(PREFIX)/share/man/man8

uninstall:
	rm -rf $(PREFIX)/lib/xnfs $(PREFIX)/bin/xnfs
	for c in mkfs mount umount fsck dumpfs debugfs; do \
	    rm -f $(PREFIX)/sbin/$$c.xnfs $(PREFIX)/share/man/man8/$$c.xnfs.8; done
	rm -f /sbin/mount.fuse.xnfs /sbin/umount.fuse.xnfs /sbin/fsck.xnfs /sbin/mkfs.xnfs
	rm -f $(PREFIX)/share/man/man1/xnfs.1

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
