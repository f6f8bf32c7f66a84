"""Data flows one way: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# module -> the project's modules that it may import
ALLOWED = {
    "common.samples": set(),
    "common.audio": {"common.samples"},
    "common.readout": {"common.samples"},
    "common.parallel": {"common.samples"},
    "common.memory": {"common.parallel"},
    "common.models": {"common.parallel", "common.samples"},
    "common.encoding": {"common.audio", "common.models", "common.samples"},
    "common.tracing": {"common.encoding", "common.models"},
    "common.engines": {"common.encoding", "common.models", "common.tracing"},
    "common.checks": {"common.encoding", "common.engines", "common.models", "common.tracing"},
    "common.session": {
        "common.checks", "common.encoding", "common.engines", "common.models", "common.parallel", "common.readout",
        "common.samples", "common.tracing",
    },
    "common.arguments": {"common.checks", "common.parallel", "common.samples"},
    "common.runs": {"common", "common.samples", "common.session"},
    "common.resampling": set(),
    "common.layers": {"common.resampling"},
    "common.metrics": {"common.layers", "common.resampling", "common.samples"},
    "common.landmarks": {"common.layers", "common.resampling"},
    "common.plotting": set(),
    "common.robustness": {"common.parallel", "common.plotting", "common.readout"},
    "logit_lens.lens": {"common.landmarks", "common.metrics", "common.readout", "common.samples", "common.session"},
    "logit_lens.plots": {"common.plotting", "common.samples"},
    "logit_lens.run": {
        "common", "common.arguments", "common.robustness", "common.samples", "common.session", "common.tracing",
        "logit_lens.lens", "logit_lens.plots",
    },
    "activation_patching.patching": {
        "common.checks", "common.encoding", "common.engines", "common.memory", "common.readout", "common.samples",
        "common.session", "common.tracing",
    },
    "activation_patching.tables": {"common.landmarks", "common.metrics"},
    "activation_patching.plots": {"common.plotting"},
    "activation_patching.run": {
        "common", "common.arguments", "common.engines", "common.robustness", "common.samples", "common.session",
        "activation_patching.patching", "activation_patching.plots", "activation_patching.tables",
    },
    "report.tables": {"common.landmarks", "common.samples"},
    "report.build": {"common.landmarks", "common.metrics", "common.plotting", "common.samples", "report.tables"},
}  # fmt: skip
WITHOUT_TORCH = (
    "common.samples",
    "common.resampling",
    "common.layers",
    "common.metrics",
    "common.landmarks",
    "common.plotting",
    "logit_lens.plots",
    "activation_patching.plots",
    "activation_patching.tables",
    "report.build",
    "report.tables",
)


def imported(module: str) -> set[str]:
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names.add(str(node.module))
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def modules() -> list[str]:
    folders = ("common", "logit_lens", "activation_patching", "report")
    return sorted(f"{d}.{f.stem}" for d in folders for f in (ROOT / d).glob("*.py") if f.stem != "__init__")


def test_the_table_names_every_module() -> None:
    assert modules() == sorted(ALLOWED)


@pytest.mark.parametrize("module", modules())
def test_imports(module: str) -> None:
    own = {
        name
        for name in imported(module)
        if name.split(".")[0] in ("common", "logit_lens", "activation_patching", "report", "data")
    }
    assert own <= ALLOWED[module]


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_plots_and_report_read_csv_only(module: str) -> None:
    seen, todo = set(), {module}
    while todo:
        seen |= todo
        todo = {n for m in todo if m in ALLOWED for n in imported(m)} - seen
    assert not {name.split(".")[0] for name in seen} & {"torch", "transformers"}


def test_run_scripts_only_wire() -> None:
    for name in ("logit_lens", "activation_patching"):
        assert len((ROOT / name / "run.py").read_text().splitlines()) <= 60
