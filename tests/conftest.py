"""Settings that come before torch, the scheduling of files, and fixtures: where tests run, not where they are only given out."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of what tests start; before torch is loaded
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # else a hub id that is none is asked for again and again

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("numprocesses", None):  # the process that gives tests out needs no torch
        config.pluginmanager.import_plugin("tests.helpers.fixtures")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Let tests of a file that share a fixture run in one process, as in two it would be made twice. xdist 3.8's marks of groups
    do nothing under pytest 9.
    """
    scheduling = LoadScopeScheduling(config, log)
    sources = {
        f.relative_to(config.rootpath).as_posix(): f.read_text(encoding="utf-8") for f in Path(__file__).parent.rglob("test_*.py")
    }
    together = {name for name, source in sources.items() if 'scope="module"' in source or "calm: Calm" in source}
    scheduling._split_scope = lambda test: file if (file := test.partition("::")[0]) in together else test
    return scheduling
