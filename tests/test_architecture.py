"""Who may import whom: the floors of the house, read from the source of every module.

Imports inside functions count too: they are as much a dependency as those at the top.
"""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmark", "compressors", "datamodules", "hardware")

# Each room of `compressors` and the rooms of it that it may import, beside `registry`, which all may.
COMPRESSORS = {
    "network": set(),
    "masks": set(),
    "threads": set(),
    "quantization": set(),
    "calibration": {"quantization", "compression", "network", "progress"},
    "progress": set(),
    "annotations": set(),
    "options": {"annotations", "budget"},
    "lifecycle": set(),
    "budget": {"annotations", "quantization"},
    "compression": {"quantization"},
    "base": {
        *("annotations", "budget", "compression", "calibration", "lifecycle"),
        *("masks", "network", "options", "progress"),
    },
    "second_order": {"budget", "calibration", "masks", "network", "options", "quantization", "threads", "weights"},
    "weights": {"base", "budget", "compression", "calibration", "masks", "network", "options", "quantization"},
    "channels": {"base", "budget", "compression", "calibration", "masks", "network", "options"},
    "methods": {
        *("annotations", "base", "budget", "calibration", "channels", "compression"),
        *("masks", "network", "options", "quantization", "second_order", "weights"),
    },
}

# The rooms of `benchmark`, each of which may import those after it.
BENCHMARK = (
    *("classifier", "models", "cli", "commands", "submissions", "contract", "smoke", "perf"),
    *("single_network", "runs", "tracking", "boards"),
    *("records", "questions", "networks", "catalog", "wording", "files", "distribution"),
)

# Names that earlier documents told people to import; the product itself has no use for them.
EARLIER = ("benchmark.classifier", "benchmark.models", "benchmark.models.conv")

# A method that is another one with a part replaced.
VARIANTS = {
    ("lamp", "magnitude"),
    ("sbc", "obc"),
    ("slamp", "lamp"),
    ("ria", "wanda"),
    ("lottery", "magnitude"),
    ("mimic", "sbc"),
}


def modules() -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """The project's own modules that a file imports, by dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who imports whom"
            deeper = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in deeper]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in PACKAGES)


GRAPH = {name: set(imports(path)) - {name} for name, path in MODULES.items()}


def room(module: str) -> str:
    """The part of a dotted name below the package: a folder, or a file at the door."""
    return module.partition(".")[2].partition(".")[0]


def edges(package: str) -> list[tuple[str, str]]:
    """All imports out of a package's modules."""
    return [(name, target) for name in GRAPH if name.partition(".")[0] == package for target in GRAPH[name]]


def within(package: str) -> list[tuple[str, str]]:
    """The imports from one room of a package into another."""
    own = [(name, target) for name, target in edges(package) if target.partition(".")[0] == package]
    return [(name, target) for name, target in own if room(name) != room(target)]


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("hardware", {"hardware"}),
        ("datamodules", {"datamodules"}),
        ("compressors", {"compressors", "hardware"}),
        ("benchmark", set(PACKAGES)),
    ],
)
def test_packages_import_only_what_they_stand_on(package, allowed):
    assert [(name, target) for name, target in edges(package) if target.partition(".")[0] not in allowed] == []


def test_no_module_imports_itself_by_way_of_others():
    graphlib.TopologicalSorter(GRAPH).prepare()


def test_rooms_of_compressors_import_downwards():
    upwards = [
        (name, target)
        for name, target in within("compressors")
        if room(name) and room(target) not in ("registry", "") and room(target) not in COMPRESSORS[room(name)]
    ]
    assert upwards == []


def test_solvers_are_functions_of_tensors():
    """Of `second_order`, three modules know layers, data and budgets; the others know neither these nor Lightning."""
    knowing = {f"compressors.second_order.{name}" for name in ("curvature", "budget_split", "layer_solver")}
    solvers = {name for name in MODULES if room(name) == "second_order"} - knowing
    known = {room(target) for name in solvers for target in GRAPH[name]}
    assert known <= {"second_order", "masks", "quantization", "threads", "registry"}
    assert not any(GRAPH[name] & knowing for name in solvers)


def test_rooms_of_benchmark_import_downwards():
    floors = {name: number for number, name in enumerate(BENCHMARK)}
    upwards = [(name, target) for name, target in within("benchmark") if floors[room(name)] > floors[room(target)]]
    assert upwards == []


def test_rooms_of_compressors_have_no_circle():
    graphlib.TopologicalSorter(COMPRESSORS).prepare()


def test_every_room_is_known():
    found = {package: {room(name) for name in GRAPH if name.startswith(f"{package}.")} for package in PACKAGES}
    assert found["compressors"] == set(COMPRESSORS) | {"registry"}
    assert found["benchmark"] == set(BENCHMARK)


def test_earlier_names_are_for_other_people():
    assert [(name, target) for name in GRAPH for target in GRAPH[name] if target in EARLIER] == []


def test_methods_do_not_import_each_other():
    methods = [(name, target) for name, target in GRAPH.items() if room(name) == "methods"]
    between = {
        (name.rpartition(".")[2], other.rpartition(".")[2])
        for name, targets in methods
        for other in targets
        if room(other) == "methods"
    }
    assert between <= VARIANTS


def test_methods_are_registered_and_nothing_else_stands_beside_them():
    from compressors.registry import COMPRESSORS as registered

    files = {name for name in MODULES if name.startswith("compressors.methods.")}
    assert files == {entry.target.partition(":")[0] for entry in registered.values() if entry.origin == "snnbench"}
