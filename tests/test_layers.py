"""Who may import whom, read from the import lines of the source.

The direction is what keeps a model testable without files and the pictures testable
without a model; see docs/architecture.md.
"""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "nsarm_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Part of the package -> what it may import: names of parts, then libraries.
# A part may always import itself and Python's standard library.
MAY_IMPORT = {
    "errors": ("", ""),
    "runtime": ("errors", "torch"),
    "shortage": ("", "torch"),
    "models": ("", "torch einops"),
    "imaging": ("errors", "torch numpy PIL einops imagecodecs tifffile pillow_heif"),
    "degradation": ("errors", "torch numpy PIL einops"),
    "text": ("models.core.memory errors", "torch safetensors transformers"),
    "perceptual": ("errors", "torch safetensors"),
    "weights": (
        "models text errors",
        "torch safetensors huggingface_hub transformers httpx2 filelock platformdirs gdown",
    ),
    "memory": ("models shortage errors", "torch psutil torchao"),
    "retry": ("shortage errors", "torch"),
    "passes": ("models.interface retry imaging runtime errors", "torch"),
    "latent_pass": ("models.interface passes retry imaging errors", "torch"),
    "acceleration": ("models memory", "torch"),
    "enlargement": ("", ""),
    "prompting": ("models.interface passes", "torch"),
    "pipeline": (
        "models.interface passes latent_pass enlargement prompting retry imaging runtime errors",
        "torch PIL",
    ),
    "training": (
        "models text weights degradation perceptual evaluation.niqe imaging runtime errors",
        "torch einops numpy PIL safetensors filelock huggingface_hub httpx2 peft",
    ),
    "evaluation": (
        "degradation perceptual imaging runtime errors",
        "torch numpy PIL safetensors huggingface_hub",
    ),
    "benchmark": ("models runtime shortage errors", "torch"),
    "cli": (
        "models text memory acceleration weights pipeline imaging degradation perceptual training "
        "evaluation benchmark runtime shortage errors",
        "torch numpy PIL safetensors typer rich",
    ),
    "__init__": ("models.interface pipeline errors", ""),  # the public names
    "__main__": ("cli", ""),
}

# Inside a function, where a convenience loads what the part is otherwise given.
MAY_IMPORT_LATE = {"pipeline": "weights.families memory", "memory": "weights.families"}

# A model is mathematics: files, processes and the terminal are other parts' work.
NOT_IN_MODELS = {"io", "logging", "os", "pathlib", "shutil", "subprocess", "sys", "tempfile"}

LIGHT = {"typer", "rich"}


class _WithoutTypes(ast.NodeTransformer):
    """Drops what only a type checker runs."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if is_typing else self.generic_visit(node)


def imports(path: Path, *, late: bool, types: bool = True) -> set[str]:
    """Full names that a module imports: at its top, or (late) inside its functions."""
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    if not types:
        tree = _WithoutTypes().visit(tree)
    in_functions = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    names = set()
    for node in ast.walk(tree):
        if (node in in_functions) is not late:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its direction"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_within(name: str, parents: str) -> bool:
    return any(f"{name}.".startswith(f"nsarm_cli.{parent}.") for parent in parents.split())


def breaches(path: Path, *, late: bool) -> list[str]:
    part = part_of(path)
    parts, libraries = MAY_IMPORT[part]
    if late:
        parts = f"{parts} {MAY_IMPORT_LATE.get(part, '')}"
    found = []
    for name in imports(path, late=late):
        top = name.split(".")[0]
        if top == "nsarm_cli":
            allowed = is_within(name, f"{part} {parts}") or name == "nsarm_cli.__version__"
        elif top in sys.stdlib_module_names:
            allowed = part != "models" or top not in NOT_IN_MODELS
        else:
            allowed = top in libraries.split()
        if not allowed:
            found.append(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_part_may(path):
    assert breaches(path, late=False) == []
    assert breaches(path, late=True) == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.name)
def test_the_command_line_imports_nothing_heavy_before_it_is_needed(path):
    heavy = {
        name
        for name in imports(path, late=False, types=False)
        if name.split(".")[0] not in LIGHT | sys.stdlib_module_names
        and not is_within(name, "cli errors __version__")
    }
    assert heavy == set()


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "models").rglob("*.py")), ids=lambda path: path.name
)
def test_model_families_share_the_core_and_not_each_other(path):
    inside = path.relative_to(PACKAGE / "models").with_suffix("").parts
    home = inside[0] if len(inside) > 1 else ""
    for name in imports(path, late=False) | imports(path, late=True):
        if is_within(name, "models"):
            target = name.split(".")[2]
            assert target in {home, "core", "interface"}, f"{home or path.name} imports {name}"


def test_the_reader_of_imports_tells_early_from_late(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import torch\nfrom a.b import c, d\nif True:\n    import e.f\n"
        "if TYPE_CHECKING:\n    import j\n"
        "def g():\n    from nsarm_cli import h\n    import i\n"
    )
    assert imports(path, late=False) == {"torch", "a.b.c", "a.b.d", "e.f", "j"}
    assert imports(path, late=False, types=False) == {"torch", "a.b.c", "a.b.d", "e.f"}
    assert imports(path, late=True) == {"nsarm_cli.h", "i"}
