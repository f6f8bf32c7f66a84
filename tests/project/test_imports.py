"""Data flows one way: who may import whom."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from common.run.record import row_makers

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ("logit_lens", "activation_patching")
FOLDERS = ("common", *EXPERIMENTS, "report")

# package or module -> the project's packages and modules that it may import, beside its own
ALLOWED = {
    "common.errors": (),
    "common.paths": (),
    "common.environment": (),
    "common.files": ("common.errors", "common.paths"),
    "common.digests": ("common.files",),
    "common.processes": ("common.errors",),
    "common.plotting": ("common.files",),
    "common.lock": ("common.errors", "common.files", "common.processes"),
    "common.default_model": ("common.errors", "common.model", "common.processes"),
    "common.clips": ("common.errors", "common.paths"),
    "common.stats": ("common.clips", "common.errors"),
    "common.model": ("common.clips", "common.errors", "common.processes"),
    "common.tracing": ("common.errors", "common.model"),
    "common.patching": ("common.errors", "common.model", "common.tracing"),
    "common.components": ("common.errors", "common.model", "common.patching", "common.tracing"),
    "common.compute": (
        "common.clips",
        "common.digests",
        "common.errors",
        "common.model",
        "common.patching",
        "common.processes",
        "common.tracing",
    ),
    "common.run": tuple(
        f"common.{name}"
        for name in (
            *(
                "clips",
                "compute",
                "default_model",
                "digests",
                "environment",
                "errors",
                "files",
                "model",
                "patching",
                "paths",
                "plotting",
            ),
            *("processes", "stats"),
        )
    ),
    "logit_lens": ("common",),
    "activation_patching": ("common",),
    "report": ("activation_patching", "common", "logit_lens"),  # torch-free parts
}
WITHOUT_TORCH = (
    *("common.errors", "common.plotting", "common.clips", "common.stats", "report"),
    *("logit_lens.fitted.probe", "logit_lens.fitted.state_file"),
    *(f"logit_lens.encoder.{part}" for part in ("findings", "plots", "tables")),
    *(f"logit_lens.{part}" for part in ("findings", "plots", "summary", "tables")),
    *(f"activation_patching.span.{part}" for part in ("effects", "findings", "plots", "summary", "tables")),
    *(
        f"activation_patching.{of}.{part}"
        for of in ("knockout", "components", "scale")
        for part in ("findings", "plots", "stages", "tables")
    ),
    "activation_patching.intervention",
)


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@cache
def modules() -> list[str]:
    files = (f.relative_to(ROOT).with_suffix("") for d in FOLDERS for f in (ROOT / d).rglob("*.py"))
    return sorted(".".join(f.parts).removesuffix(".__init__") for f in files)


@cache
def imported(module: str, *, called: bool = True) -> set[str]:
    """Return what a module imports: modules, not the names taken from them; not `called`: what it does without any call."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names: set[str] = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if called else tree.body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules() else str(node.module) for name in inside}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def own(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in (*FOLDERS, "data", "tests")}


def test_an_import_of_a_module_is_seen_as_such() -> None:
    assert "common.processes" in imported("logit_lens.run") and "common.run" not in imported("logit_lens.run")


@pytest.mark.parametrize("module", modules())
def test_imports(module: str) -> None:
    homes = [place for place in ALLOWED if within(module, (place,))]
    if not homes:
        assert module == "common", f"{module}: the table does not name it"
        return
    outside = {name for name in own(imported(module)) if not within(name, (*homes, *ALLOWED[homes[0]]))}
    assert not outside


def test_no_module_imports_itself_by_a_detour() -> None:
    list(TopologicalSorter({module: own(imported(module)) for module in modules()}).static_order())  # raises on a cycle


def reached(module: str) -> set[str]:
    """Return the packages that importing a module imports, by whatever detour."""
    seen: set[str] = set()
    todo = {module}
    while todo:
        seen |= todo
        todo = {name for m in todo if m in modules() for name in imported(m, called=False)} - seen
    return {name.split(".")[0] for name in seen}


@pytest.mark.parametrize("module", [m for m in modules() if within(m, WITHOUT_TORCH)])
def test_plots_statistics_and_report_know_no_torch(module: str) -> None:
    assert not reached(module) & {"torch", "transformers", "accelerate"}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_identity_of_a_run_holds_what_makes_rows_and_nothing_that_shows_them(experiment: str) -> None:
    makers = {str(f.relative_to(ROOT)) for f in row_makers(experiment)}
    assert {"common/clips/audio.py", "common/model/head.py", "common/tracing/trace.py", f"{experiment}/choose.py"} <= makers
    files = {f.relative_to(ROOT): f.read_text(encoding="utf-8") for f in (ROOT / experiment).rglob("*.py")}
    assert {str(f) for f, code in files.items() if "\nimport torch\n" in code and f.name != "plan.py"} <= makers
    shown = [m for m in makers if any(part in m for part in ("plot", "tables", "findings", "summary", "common/run/"))]
    assert not shown


@pytest.mark.parametrize(
    "module", ["logit_lens.rows", *(f"activation_patching.{p}.rows" for p in ("span", "knockout", "components"))]
)
def test_rows_are_made_without_what_tables_and_figures_need(module: str) -> None:
    """As on a machine with a GPU that has little beside torch."""
    assert not reached(module) & {"pandas", "matplotlib", "PIL", "scipy", "sklearn"}


def test_tables_are_read_in_one_place() -> None:
    """Where text is not taken for numbers."""
    files = [f for d in (*FOLDERS, "data") for f in (ROOT / d).rglob("*.py")]
    assert [f.name for f in files if "read_csv(" in f.read_text(encoding="utf-8")] == ["csvfile.py"]
