"""The shape of the package: one-way imports, a light front door, nothing executable."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import throughtime

SOURCE = Path(throughtime.__file__).parent

# Each module (or package) imports only from those above it. A new one is one more line.
ORDER = (
    "_version",
    "errors",
    "types",
    "state",
    "rng",
    "runtime",
    "files",
    "manifest",
    "wording",
    "kernels",
    "layers",
    "emissions",
    "data",
    "models",
    "gradflow",
    "bptt",
    "training",
    "predict",
    "evaluation",
    "search",
    "history",
    "report",
    "runs",
    "bench",
    "cli",
    "__main__",
)

# Those that need less than the order allows them: what they may import, all told.
ONLY: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "types": set(),
    "state": {"errors"},
    "rng": set(),
    "wording": set(),
    "runtime": set(),
    "files": {"errors"},
    "manifest": {"errors", "files"},
    "kernels": {"errors", "state"},
    "layers": {"errors", "state", "kernels"},
    "emissions": {"errors"},
    "data": {"errors", "types", "wording"},
    "gradflow": {"errors", "state", "files", "kernels"},
    "bptt": {"errors", "state", "gradflow"},
    "bench": {"errors", "state", "runtime", "wording", "kernels", "layers", "emissions", "models"},
    # Reports read values, they never load models.
    "report": {"errors", "files", "manifest", "wording", "evaluation.results"},
}
WITHOUT_TORCH = {"_version", "errors", "types", "wording", "report"}

# Of the kernels, each knows those before it; `kernels` itself, the dispatcher, knows all.
KERNELS = ("cells", "native", "stack", "reference", "aten", "cpu")

PUBLIC = [
    "Autoregressive",
    "Batch",
    "Context",
    "FittedModel",
    "Forecast",
    "GRU",
    "LSTM",
    "Lanes",
    "LatentAutoregressive",
    "LiGRU",
    "MinGRU",
    "RNN",
    "Run",
    "Sequences",
    "Stepper",
    "TrainSettings",
    "Trainer",
    "accelerate",
    "bptt",
    "emissions",
    "fit",
    "gradflow",
    "history",
    "kernels",
    "load",
    "read",
    "restore",
    "train",
]


def name_of(path: Path) -> str:
    parts = ("throughtime", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def group(module: str) -> str:
    """The part of the package that a module belongs to; "" for the package itself."""
    return [*module.split("."), ""][1]


def only_for_types(tree: ast.Module) -> set[ast.AST]:
    """Everything under ``if TYPE_CHECKING:``."""
    result: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            result.update(inner for part in node.body for inner in ast.walk(part))
    return result


def imports(name: str, types: bool = True) -> set[str]:
    """The dotted names that a module imports, in functions too; submodules are resolved."""
    tree, result = TREES[name], set()
    skipped = set() if types else only_for_types(tree)
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            result.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            origin = ".".join([*base, node.module] if node.module else base)
            origin = origin if node.level else str(node.module)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                result.add(inner if inner in MODULES else origin)
    return result


def own(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "throughtime"}


def test_every_module_has_a_place_in_the_order() -> None:
    assert len(MODULES) > 60
    groups = {group(name) for name in MODULES} - {""}
    assert {name for name in MODULES if group(name) == "kernels"} == {
        "throughtime.kernels",
        *(f"throughtime.kernels.{name}" for name in KERNELS),
    }
    assert groups == set(ORDER), "give a new module its line in ORDER, take a removed one out"
    assert len(ORDER) == len(set(ORDER))
    assert set(ONLY) | WITHOUT_TORCH <= set(ORDER)


def test_the_reader_of_imports_sees_them() -> None:
    """The tests below would hold of anything if this function saw nothing."""
    assert "throughtime.state" in imports("throughtime.bptt.base")
    assert "throughtime.kernels.reference" in imports("throughtime.kernels")
    assert "throughtime.errors" in imports("throughtime.data.transforms.base")
    assert "throughtime.data.domain" in imports("throughtime.data.transforms.base")
    assert "throughtime.runs.fit" in imports("throughtime.cli.fit")
    assert "throughtime.kernels" in imports("throughtime.kernels.aten")
    assert "throughtime.kernels" not in imports("throughtime.kernels.aten", types=False)
    assert "torch" in imports("throughtime.rng")
    assert sum(len(own(imports(name))) for name in MODULES) > 150


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_one_way(name: str) -> None:
    allowed = {"", name} | ONLY.get(name, set(ORDER[: ORDER.index(name)]))
    for module in MODULES:
        if group(module) == name:
            result = own(imports(module))
            assert result <= set(MODULES), f"{module} imports what is not there"
            upward = {other for other in result if not {group(other), other[12:]} & allowed}
            assert not upward, f"{module} imports {sorted(upward)}"


def test_kernels_know_those_before_them_only() -> None:
    for place, name in enumerate(KERNELS):
        result = own(imports(f"throughtime.kernels.{name}", types=False))
        result = {other for other in result if group(other) == "kernels"}
        assert result <= {f"throughtime.kernels.{other}" for other in KERNELS[:place]}, name
    known = own(imports("throughtime.kernels", types=False))
    assert {f"throughtime.kernels.{name}" for name in KERNELS} - known == {
        "throughtime.kernels.stack",  # only the backends build on it
    }


def test_no_two_modules_import_each_other() -> None:
    graph = {name: own(imports(name, types=False)) - {name, "throughtime"} for name in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(MODULES) - 1


@pytest.mark.parametrize("name", sorted(WITHOUT_TORCH))
def test_what_the_help_needs_does_not_import_torch(name: str) -> None:
    for module in MODULES:
        if group(module) == name:
            top = {dotted.split(".")[0] for dotted in imports(module)}
            assert "torch" not in top, module


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, throughtime; print(dir(throughtime)); print('torch' in sys.modules)"
    lines = run_python(code).splitlines()
    assert lines[-1] == "False"
    assert "'fit'" in lines[0]


def test_reports_are_written_without_torch() -> None:
    code = "import sys, throughtime.report, throughtime.report.picture; print(sys.modules.keys())"
    assert "throughtime.evaluation.results" in run_python(code)
    assert "'torch'" not in run_python(code)


def test_help_does_not_import_torch() -> None:
    code = """
import sys
from throughtime.cli import app, main
commands = [name for name in app if not name.startswith("-")]
assert len(commands) > 8
for arguments in (["--help"], *([name, "--help"] for name in commands), ["--version"]):
    sys.argv = ["throughtime", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end
print("numpy", "numpy" in sys.modules, "torch", "torch" in sys.modules)
"""
    result = run_python(code)
    assert "throughtime fit" in result
    assert "--time-limit" in result
    assert throughtime.__version__ in result
    assert result.splitlines()[-1].endswith("torch False")


def test_the_public_names_are_pinned() -> None:
    assert sorted(throughtime.__all__) == PUBLIC
    assert dir(throughtime) == sorted([*PUBLIC, "__version__"])
    tree = TREES["throughtime"]
    for_types = only_for_types(tree)
    typed = {
        alias.asname
        for node in for_types
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.module != "typing"
    }
    assert typed == set(PUBLIC)  # what a type checker sees is what there is
    for name in PUBLIC:
        assert getattr(throughtime, name) is not None
    with pytest.raises(AttributeError, match="module 'throughtime' has no attribute 'nothing'"):
        throughtime.nothing  # noqa: B018
    at_run_time = imports("throughtime", types=False)
    assert at_run_time == {"__future__", "importlib", "sys", "throughtime._version"}


UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "runpy", "code"}
UNSAFE_BUILTINS = {"eval", "exec", "__import__"}
UNSAFE_ATTRIBUTES = {("torch", "load"), ("torch", "save")}


def unsafe(tree: ast.Module) -> list[str]:
    """Every place of a module that could run what a file holds."""
    result = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            result += [a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = {(str(node.module), alias.name) for alias in node.names}
            bad = str(node.module).split(".")[0] in UNSAFE_MODULES or names & UNSAFE_ATTRIBUTES
            result += [ast.unparse(node)] if bad else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            result += [node.func.id] if node.func.id in UNSAFE_BUILTINS else []
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            result += [".".join(pair)] if pair in UNSAFE_ATTRIBUTES else []
        elif isinstance(node, ast.keyword) and ast.unparse(node) == "allow_pickle=True":
            result.append("allow_pickle")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            said = {ast.unparse(keyword) for keyword in node.keywords}
            result += [] if "allow_pickle=False" in said else ["np.load"]
    return result


def test_nothing_executable_is_ever_loaded() -> None:
    examples = (
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "from torch import load",
        "eval(text)",
        "np.load(path)",
        "read(path, allow_pickle=True)",
    )
    assert all(unsafe(ast.parse(example)) for example in examples)
    assert not unsafe(ast.parse("model.eval(); json.load(file); np.load(file, allow_pickle=False)"))
    for name, tree in TREES.items():
        assert unsafe(tree) == [], name
