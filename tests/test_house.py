"""The house: layers, cycles, sizes, public names, and what importing does not do."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import trio_dagnats
import trio_dagnats.client
import trio_dagnats.errors
import trio_dagnats.local
import trio_dagnats.telemetry
import trio_dagnats.testing

ROOT = Path(trio_dagnats.__file__).parent
MODULES = {
    ".".join(["trio_dagnats", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}
MAY_IMPORT = {
    "telemetry": {"wire", "worker"},
    "inspection": set[str](),
    "errors": {"inspection"},
    "logs": {"inspection"},
    "wire": {"errors"},
    "attempt": {"inspection", "errors", "wire"},
    "transport": {"errors", "logs", "wire"},
    "worker": {"inspection", "errors", "logs", "wire", "attempt", "transport"},
    "client": {"errors", "logs", "wire", "transport"},
    "local": {"errors", "logs", "wire", "transport"},
    "cli": {"errors", "logs", "wire", "attempt", "transport", "worker", "client", "local", ""},
    "testing": {"errors", "wire", "attempt", "transport", "worker", "client", "local", ""},
    "": {"errors", "wire", "transport", "worker", "client"},
}
WORKER_ROOMS = {
    "typed": set[str](),
    "intake": set[str](),
    "engine": set[str](),
    "telemetry": set[str](),
    "deadlines": set[str](),
    "settings": {"intake"},
    "directory": {"deadlines", "intake"},
    "attempts": {"deadlines", "engine", "intake", "telemetry"},
    "execution": {"attempts", "deadlines", "engine", "intake", "telemetry"},
    "observe": {"attempts"},
    "drain": {"attempts", "deadlines", "engine", "observe"},
    "asyncio_bridge": set[str](),
    "context": {"attempts", "asyncio_bridge", "engine", "execution", "typed"},
    "handlers": {"attempts", "asyncio_bridge", "context", "intake", "typed"},
}
"""What each room of ``worker`` may import of the others; ``service`` and ``worker`` see all."""
WRITES_ATTEMPTS = ("trio_dagnats.worker.attempts.", "trio_dagnats.worker.execution.")
ASYNCIO = {"asyncio", "nats", "trio_asyncio"}
MAY_TOUCH_ASYNCIO = (
    "trio_dagnats.transport.nats_py",
    "trio_dagnats.worker.asyncio_bridge",
    "trio_dagnats.asyncio",
)
"""The second and the third are for handlers on asyncio libraries: what comes next has its room."""
PURE = (
    "trio_dagnats.wire",
    "trio_dagnats.attempt.",
    "trio_dagnats.local.engine.core.transitions",
)
"""Rules without I/O: no trio, and nothing of the transport."""


def imports(path: Path, module: str, *, types: bool = False) -> Iterator[str]:
    """Yield the modules that a module imports, wherever in it; with ``types`` for types, too."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in for_types and not types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def room(module: str) -> str:
    """Return a module's room, empty for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


GRAPH = {module: set(imports(path, module)) for module, path in MODULES.items()}
WITH_TYPES = {module: set(imports(path, module, types=True)) for module, path in MODULES.items()}


def test_imports_point_down_only() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in others
        if other.split(".")[0] == "trio_dagnats"
        and room(other) != room(module)
        and room(other) not in MAY_IMPORT[room(module)]
    ]

    assert not wrong


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports for types count: a circle that types hide is one all the same."""
    own = {module: {o for o in others if o in MODULES} for module, others in WITH_TYPES.items()}

    TopologicalSorter(own).prepare()


def worker_room(module: str) -> str:
    """Return a module's room in ``worker``; empty for what stands elsewhere."""
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[1] == "worker" else ""


def test_the_rooms_of_the_worker_import_what_their_table_names() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in WITH_TYPES.items()
        if (mine := worker_room(module)) and mine not in {"service", "worker"}
        for other in others
        if (theirs := worker_room(other)) and theirs != mine and theirs not in WORKER_ROOMS[mine]
    ]

    assert not wrong


def attempts_of(tree: ast.AST) -> set[str]:
    """Return the names by which a module knows attempts: by annotation, or by custom."""
    return {"attempt"} | {
        node.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.arg)
        and node.annotation is not None
        and ast.unparse(node.annotation).strip("'\"") == "Attempt"
    }


def written(path: Path) -> Iterator[str]:
    """Yield what a module assigns to an attribute of an attempt."""
    tree = ast.parse(path.read_text())
    names = attempts_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            owner = node.value
            if (isinstance(owner, ast.Name) and owner.id in names) or (
                isinstance(owner, ast.Attribute) and owner.attr in {"attempt", "_attempt"}
            ):
                yield ast.unparse(node)


def test_only_two_rooms_write_to_an_attempt() -> None:
    """Everybody else calls a method: who wants to know who writes need not read the worker."""
    wrong = {
        module: found
        for module, path in MODULES.items()
        if not module.startswith(WRITES_ATTEMPTS) and (found := sorted(written(path)))
    }

    assert not wrong


def test_only_rooms_of_its_own_touch_asyncio_and_nats() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in others
        if other.split(".")[0] in ASYNCIO and not module.startswith(MAY_TOUCH_ASYNCIO)
    ]

    assert not wrong


def test_pure_rules_know_neither_trio_nor_the_transport() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in WITH_TYPES.items()
        if module.startswith(PURE)
        for other in others
        if other.split(".")[0] == "trio" or other.startswith("trio_dagnats.transport")
    ]

    assert not wrong


PACKAGES = sorted(m for m, path in MODULES.items() if path.name == "__init__.py")


@pytest.mark.parametrize("module", PACKAGES)
def test_a_room_says_what_lives_in_it(module: str) -> None:
    said = ast.get_docstring(ast.parse(MODULES[module].read_text())) or ""

    assert len(said.splitlines()) >= 3
    assert module == "trio_dagnats" or "May import" in " ".join(said.split())


def docstrings(tree: ast.AST) -> set[int]:
    """Return the lines of docstrings, those of constants included."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def code_lines(path: Path) -> int:
    """Count the lines with code on them: no comment, docstring or blank line is one."""
    text = path.read_text()
    prose = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    found = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in (*prose, tokenize.ENDMARKER)
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(found - docstrings(ast.parse(text)))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_is_small(module: str) -> None:
    """Code is bounded, and prose is not: what needs a diagram has room for one."""
    assert code_lines(MODULES[module]) <= 250


def class_size(node: ast.ClassDef) -> int:
    """Count a class's lines without its docstrings."""
    assert node.end_lineno is not None
    lines = node.end_lineno - node.lineno + 1
    for inner in ast.walk(node):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = inner.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                assert first.end_lineno is not None
                lines -= first.end_lineno - first.lineno + 1
    return lines


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_class_is_small(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())

    sizes = {n.name: class_size(n) for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}

    assert not {name: size for name, size in sizes.items() if size > 200}


def arguments(args: ast.arguments) -> list[ast.arg]:
    """Return all of a function's arguments."""
    extra = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *extra]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_any_in_signatures(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    found = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for part in [*(arg.annotation for arg in arguments(node.args)), node.returns]
        if part is not None and re.search(r"\bAny\b", ast.unparse(part))
    ]

    assert not found


def test_the_public_names() -> None:
    assert trio_dagnats.__all__ == [
        "CancelReason",
        "Client",
        "ConnectOptions",
        "Continue",
        "DagnatsError",
        "Fatal",
        "HandleOptions",
        "Inbox",
        "LedgerLine",
        "RateLimited",
        "Retry",
        "Retryable",
        "Run",
        "TaskContext",
        "Telemetry",
        "Worker",
        "WorkerRegistration",
        "Workflow",
        "is_fatal",
        "is_retryable",
    ]
    assert trio_dagnats.local.__all__ == ["LocalEngine", "Server"]


@pytest.mark.parametrize(
    "package",
    [
        trio_dagnats,
        trio_dagnats.telemetry,
        trio_dagnats.client,
        trio_dagnats.errors,
        trio_dagnats.local,
        trio_dagnats.testing,
    ],
)
def test_every_public_name_is_documented(package: object) -> None:
    names: list[str] = package.__all__  # type: ignore[attr-defined]  # a module
    for name in names:
        found = getattr(package, name)
        assert found.__doc__, name
        members = vars(found).items() if isinstance(found, type) else ()
        for member, value in members:
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert value.__doc__, f"{name}.{member}"


def run_python(code: str) -> str:
    """Run code in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_importing_leaves_asyncio_untouched() -> None:
    code = """
import sys
import trio_dagnats, trio_dagnats.client, trio_dagnats.local, trio_dagnats.testing
import trio_dagnats.cli, trio_dagnats.cli.main
print([m for m in ("asyncio", "nats", "trio_asyncio", "click", "rich") if m in sys.modules])
"""
    loaded = run_python(code)

    assert loaded in {"[]", "['asyncio']"}
    if loaded != "[]":
        assert run_python("import sys, trio, pydantic; print('asyncio' in sys.modules)") == "True"


def test_importing_the_package_alone_loads_nothing_at_all() -> None:
    code = """
import sys
import trio_dagnats
print([m for m in ("trio", "pydantic", "asyncio", "nats") if m in sys.modules])
"""
    assert run_python(code) == "[]"


def test_importing_loads_nothing_that_a_worker_does_not_need_yet() -> None:
    """What keeps the import short, told by modules instead of by a clock."""
    code = """
import sys
import trio, pydantic
before = set(sys.modules)
from trio_dagnats import TaskContext, Worker
print(" ".join(sorted({m.split(".")[0] for m in set(sys.modules) - before})))
print(" ".join(sorted(m for m in sys.modules if m.startswith("trio_dagnats."))))
"""
    tops, own = run_python(code).splitlines()

    mine = {top for top in tops.split() if not top.startswith("_")}
    foreign = mine - sys.stdlib_module_names - {"trio_dagnats"}
    assert foreign <= {"pydantic", "pydantic_core", "trio", "outcome", "annotated_types"}
    late = ("client", "local", "testing", "transport.nats", "transport.memory", "wire.definitions")
    assert not [m for m in own.split() if m.startswith(tuple(f"trio_dagnats.{r}" for r in late))]
