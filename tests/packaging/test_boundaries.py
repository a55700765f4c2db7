"""Which package may import what of the other."""

import ast
from pathlib import Path

import pytest

import kvbench
import kvcache
import kvcache.world_model

PUBLIC = {"kvcache": set(kvcache.__all__), "kvcache.world_model": set(kvcache.world_model.__all__)}


def files(package):
    return sorted(Path(package.__file__).parent.rglob("*.py"))


def imports(path):
    """Each import of a file: the module, and the name taken from it or None."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from ((node.module, each.name) for each in node.names)
        elif isinstance(node, ast.Import):
            yield from ((each.name, None) for each in node.names)


def is_of(module, package):
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("path", files(kvcache), ids=lambda path: path.name)
def test_the_cache_never_imports_the_suite(path):
    assert not [module for module, _ in imports(path) if is_of(module, "kvbench")]


@pytest.mark.parametrize("path", files(kvbench), ids=lambda path: "/".join(path.parts[-2:]))
def test_the_suite_imports_public_names_of_the_cache(path):
    for module, name in imports(path):
        if is_of(module, "kvcache"):
            assert module in PUBLIC, f"{path}: {module} is not public"
            assert name in PUBLIC[module], f"{path}: {module}.{name} is not public"


ALLOWED = {"kvcache", "numpy", "torch", "triton", "xxhash"}


@pytest.mark.parametrize("path", files(kvcache), ids=lambda path: path.name)
def test_the_cache_needs_torch_numpy_and_xxhash_only(path):
    import sys

    foreign = {module.partition(".")[0] for module, _ in imports(path)} - ALLOWED
    assert foreign <= sys.stdlib_module_names


# From the ground up: no floor imports from a higher one (docs/architecture.md draws them).
FLOORS = [
    {"metrics", "files", "text"}, {"errors", "parse"}, {"trace", "measure", "results"}, {"requests"}, {"replay"},
    {"record", "capacity", "profile"}, {"training"}, {"history"}, {"judge"}, {"gate", "report"}, {"cli"}, {"__main__"},
]  # fmt: skip


def test_the_suites_floors():
    height = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    root = Path(kvbench.__file__).parent
    for path in files(kvbench):
        own = path.relative_to(root).with_suffix("").parts[0]
        for module, _ in imports(path):
            if is_of(module, "kvbench") and module.count("."):
                other = module.split(".")[1]
                if own not in ("__init__", other):
                    assert height[other] < height[own], f"{path} imports {module}, from its own floor or a higher one"
