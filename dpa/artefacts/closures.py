"""Which modules compute what a script makes, and a hash of them that only meaning changes.

The closure of a script is the script and all modules of dpa that it imports, directly or not, but
for `runtime` and `errors` (how a job runs, never what it computes) and the words of model cards
(dpa.artefacts.files: no content). The hash leaves out comments, docstrings and layout, and is the
same under every Python that runs this: `ast.dump` is not.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from dpa.runtime.run_environment import CLONE

#: By definition no rule's input.
LEFT_OUT = ("dpa/runtime/", "dpa/errors.py", "dpa/serving/card.py", "dpa/__init__.py")
#: What differs between versions of Python, or follows from the rest.
IGNORED = frozenset({"ctx", "kind", "type_comment", "type_ignores", "type_params"})


class Modules:
    """Digest and imports of modules, each looked at once.

    `known` may keep them beyond this process, by what `file_key` says of a file.
    """

    def __init__(self, known: MutableMapping[str, Any] | None = None):
        self._known: MutableMapping[str, Any] = {} if known is None else known
        self._seen: dict[Path, tuple[str, list[str]]] = {}

    def look_at(self, path: Path) -> tuple[str, list[str]]:
        """A module's code digest, and the names that it imports of dpa."""
        if path not in self._seen:
            key = file_key(path)
            if key not in self._known:
                tree = ast.parse(path.read_bytes(), filename=str(path))
                self._known[key] = [code_digest(tree), sorted(imported_names(tree))]
            digest, names = self._known[key]
            self._seen[path] = digest, names
        return self._seen[path]

    def closure(self, script: Path) -> list[Path]:
        """A script and the modules that compute what it makes, sorted."""
        found: set[Path] = set()
        queue = [script]
        while queue:
            path = queue.pop()
            if path not in found and not _name(path).startswith(LEFT_OUT):
                found.add(path)
                queue += [file for name in self.look_at(path)[1] for file in _files(name)]
        return sorted(path for path in found if path.stat().st_size)

    def hash(self, modules: Iterable[Path]) -> str:
        """Identifies the code of modules, 16 hexadecimal digits."""
        text = "".join(f"{_name(path)} {self.look_at(path)[0]}\n" for path in modules)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_key(path: Path) -> str:
    """What changes when a file is replaced or written, whatever its time stamp is then."""
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def code_digest(tree: ast.AST) -> str:
    """SHA-256 of a syntax tree, without docstrings (nor the strings below fields)."""
    digest = hashlib.sha256()
    for part in _parts(tree):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _parts(tree: ast.AST) -> Iterator[str]:
    """The tree in depth-first order, as text that does not depend on Python's version."""
    stack: list[object] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Constant):
            yield f"{type(node.value).__name__} {node.value!r}"
        elif isinstance(node, ast.AST):
            yield type(node).__name__
            for name in reversed(node._fields):
                value = getattr(node, name, None)
                if isinstance(node, ast.JoinedStr):  # 3.12 finds empty pieces in format strings
                    value = [piece for piece in node.values if getattr(piece, "value", 0) != ""]
                if name not in IGNORED and value not in (None, []):
                    stack += [value, f".{name}"]
        elif isinstance(node, list):
            yield "["
            stack.append("]")
            stack += [item for item in reversed(node) if not _is_bare_string(item)]
        else:
            yield str(node)


def _is_bare_string(node: object) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def imported_names(tree: ast.AST) -> set[str]:
    """What is imported of dpa, anywhere in a module but for type checkers alone."""
    found: set[str] = set()
    queue = [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            queue += node.orelse
            continue
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found.update(name for name in names if name.split(".")[0] == "dpa")
        queue += ast.iter_child_nodes(node)
    return found


def _files(name: str) -> list[Path]:
    stem = CLONE.joinpath(*name.split("."))
    return [file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()]


def _name(path: Path) -> str:
    return path.relative_to(CLONE).as_posix() if path.is_relative_to(CLONE) else str(path)


def running_code(known: MutableMapping[str, Any] | None = None) -> str:
    """The hash of the running script's closure; outside of scripts, of the whole library."""
    modules = Modules(known)
    if (found := script_code(Path(sys.argv[0]).stem, modules)) is not None:
        return found
    library = (path for path in sorted((CLONE / "dpa").rglob("*.py")) if path.stat().st_size)
    return modules.hash(path for path in library if not _name(path).startswith(LEFT_OUT))


def script_code(name: str, modules: Modules) -> str | None:
    """The hash of a script's closure; None when there is no such script."""
    script = CLONE / "scripts" / f"{name}.py"
    return modules.hash(modules.closure(script)) if script.is_file() else None
