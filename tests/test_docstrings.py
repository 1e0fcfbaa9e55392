"""Docstrings of what is public: first line what, then Args, Returns, Raises."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import throughtime as tt

PACKAGES = ("bptt", "emissions", "gradflow", "history", "kernels", "layers")


def public() -> Iterator[tuple[str, Any]]:
    """Every public function and class, and the public methods of each class, by name."""
    seen = set()
    owners: list[ModuleType] = [tt]
    owners += [importlib.import_module(f"throughtime.{name}") for name in PACKAGES]
    for owner in owners:
        for name in getattr(owner, "__all__", ("reference", "backends")):
            value = getattr(owner, name)
            if isinstance(value, ModuleType) or id(value) in seen:
                continue
            seen.add(id(value))
            if inspect.isroutine(value) or inspect.isclass(value):
                yield f"{owner.__name__}.{name}", value
            if inspect.isclass(value):
                for method, part in vars(value).items():
                    function = (
                        part.__func__ if isinstance(part, (staticmethod, classmethod)) else part
                    )
                    ours = inspect.isfunction(function) and function.__module__.startswith(
                        "throughtime"
                    )
                    if ours and not method.startswith("_"):
                        yield f"{owner.__name__}.{name}.{method}", function


ALL = dict(public())


def arguments(value: Any) -> list[str]:
    """What a caller can give, but for self and catch-alls."""
    if inspect.isclass(value):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(value).parameters.values()
    return [p.name for p in found if p.name not in ("self", "cls") and p.kind not in kinds]


def inherited(name: str, value: Any) -> bool:
    """A method that does what its base class says."""
    owner = ALL.get(name.rpartition(".")[0])
    if not inspect.isclass(owner):
        return False
    return any(value.__name__ in vars(base) for base in owner.__mro__[1:])


def raises(value: Any) -> bool:
    """Whether the body raises an error of the product by itself."""
    try:
        tree = ast.parse(inspect.cleandoc(inspect.getsource(value)).expandtabs())
    except (OSError, SyntaxError, TypeError):
        return False
    return any(
        isinstance(node, ast.Raise) and node.exc is not None and "Error" in ast.unparse(node.exc)
        for node in ast.walk(tree)
    )


def problem(name: str, value: Any) -> str:
    """What a docstring lacks; "" for a good one."""
    text = inspect.getdoc(value) if not inspect.isclass(value) else value.__doc__
    if not text or not text.strip():
        return "" if inherited(name, value) else "no docstring"
    if inspect.isclass(value) or inherited(name, value) or "rguments" in text:  # … as for …
        return ""
    if len(arguments(value)) > 1 and "Args:" not in text:
        return "no Args"
    if not inspect.isclass(value) and raises(value) and "Raises:" not in text:
        return "no Raises"
    return ""


def test_there_is_something_to_read() -> None:
    assert len(ALL) > 80


@pytest.mark.parametrize("name", ALL)
def test_a_docstring_says_what_is_given_and_what_is_raised(name: str) -> None:
    assert problem(name, ALL[name]) == ""
