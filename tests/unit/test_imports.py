"""Invariant 12: pure modules import no Kafka, no accelerator and no time, not even by way of another module of ours."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE_NAMES = {
    "records",
    "framing",
    "decode",
    "batching",
    "batch_shapes",
    "backup_wait",
    "breaker",
    "contract",
    "engine",
    "guard",
    "guard_reference",
    "guard_window",
    "guard_watch",
    "checked",
    "decoders",
    "encode",
    "statistics",
    "errors",
    "freshness",
    "catching_up",
    "replay_book",
    "replay_keys",
    "replay_fresher",
}
FORBIDDEN = {
    *("confluent_kafka", "tensorrt", "tensorrt_rtx", "cuda", "onnxruntime"),
    *("time", "threading", "asyncio", "socket", "datetime", "multiprocessing", "subprocess"),
}
PACKAGES = ("worker", "schemas", "engine_build", "demo")


def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file, of everything in `package`; nothing if the package isn't there (yet)."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, package: str) -> set[str]:
    """Every module that the file names in an import, wherever it stands; `from a import b` counts as a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


ALL = {name: path for package in PACKAGES for name, path in modules(package).items()}
GRAPH = {
    name: imported(path, name if path.name == "__init__.py" else name.rpartition(".")[0]) for name, path in ALL.items()
}
PURE = sorted(
    name
    for name in ALL
    if name.startswith("worker.")
    and (name.split(".")[1] in PURE_NAMES or name.split(".")[1].startswith(("avro", "settings_")))
)


def reachable(start: str) -> dict[str, str]:
    """Every module reached from `start` over modules of ours -> the chain that reaches it."""
    chains = {start: start}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        for name in GRAPH.get(module, ()):
            if name not in chains:
                chains[name] = f"{chains[module]} -> {name}"
                waiting.append(name)
    return chains


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_reach_no_kafka_no_accelerator_no_time(module: str) -> None:
    wrong = [chain for name, chain in reachable(module).items() if name.split(".")[0] in FORBIDDEN]
    assert not wrong


def test_the_pure_modules_of_the_list_are_there() -> None:
    assert {name.split(".")[1] for name in PURE} >= PURE_NAMES


@pytest.mark.parametrize("module", sorted(ALL))
def test_packages_know_only_whom_they_may(module: str) -> None:
    strangers = {
        "worker": {"engine_build", "demo", "bench", "tests"},
        "engine_build": {"worker", "demo", "bench", "tests"},
        "schemas": {"worker", "engine_build", "demo", "bench", "tests"},
        "demo": {"bench", "tests"},
    }[module.split(".", maxsplit=1)[0]]
    assert not {name for name in GRAPH[module] if name.split(".")[0] in strangers}


def test_the_walk_sees_imports_of_every_form(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import a.b\nfrom c import d\nfrom . import e\nfrom .f import g\ndef h():\n    import time\n")
    assert imported(path, "worker") == {"a.b", "c", "c.d", "worker", "worker.e", "worker.f", "worker.f.g", "time"}


def workers_that_import(library: str) -> set[str]:
    return {name for name in ALL if name.startswith("worker.") and library in {i.split(".")[0] for i in GRAPH[name]}}


def test_confluent_kafka_and_the_engines_stay_in_their_files() -> None:
    """Who names a client or a runtime directly: the two seams and the composition root's helpers, nobody else."""
    assert workers_that_import("onnxruntime") <= {"worker.onnx_engine"}
    assert workers_that_import("cuda") == {"worker.cuda"}
    assert workers_that_import("tensorrt") == {"worker.tensorrt_runtime"}
    assert workers_that_import("tensorrt_rtx") == {"worker.tensorrt_runtime"}
    assert not workers_that_import("confluent_kafka") & set(PURE)


@pytest.mark.parametrize("module", ["worker.cuda", "worker.tensorrt_runtime"])
def test_optional_libraries_are_imported_when_they_are_needed_only(module: str) -> None:
    """So that a machine without a GPU can import everything."""
    top = {
        alias.name.split(".")[0] if isinstance(node, ast.Import) else (node.module or "").split(".")[0]
        for node in ast.parse(ALL[module].read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not top & {"cuda", "tensorrt", "tensorrt_rtx"}


def test_engine_build_names_its_runtimes_in_one_file_each() -> None:
    """TensorRT's modules are imported by name in `trt.py`, cuda-python's in `device.py`; nobody else names either."""

    def quoting(text: str) -> set[str]:
        return {
            name
            for name, path in modules("engine_build").items()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) == "importlib.import_module"
            and text in ast.unparse(node)
        }

    assert quoting("name") == {"engine_build.trt"}
    assert quoting("cuda.bindings") == {"engine_build.device"}
    direct = {
        name
        for name in modules("engine_build")
        for each in GRAPH[name]
        if each.split(".")[0] in {"tensorrt", "tensorrt_rtx", "cuda"}
    }
    assert direct == set()
