"""What editors show: each public function and method documents its arguments, its result and its errors."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pgqrs
import pgqrs.decoding
import pgqrs.django
import pgqrs.fastapi
import pgqrs.sync
import pgqrs.testing
from pgqrs import _pgqrs

Documented = Callable[..., Any]


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The classes and functions that a module shows, each with its name."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in names:
        # That of `django.tasks` needs Django 6.
        if name == "TasksBackend":
            continue
        item = getattr(module, name)
        if (inspect.isclass(item) or inspect.isfunction(item)) and item.__module__.startswith("pgqrs"):
            yield f"{module.__name__}.{name}", item


MODULES = (pgqrs, pgqrs.sync, pgqrs.decoding, pgqrs.testing, pgqrs.django, pgqrs.fastapi)


def callables() -> Iterator[tuple[str, Documented]]:
    for module in MODULES:
        for name, item in public(module):
            if inspect.isfunction(item):
                yield name, item
                continue
            for method, found in vars(item).items():
                function = getattr(found, "__func__", found)
                if not method.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{method}", function


CALLABLES = dict(callables())


def sections(function: Documented) -> dict[str, str]:
    """The parts of a docstring by their headings; its beginning has none."""
    doc = inspect.getdoc(function) or ""
    parts = re.split(r"^(Args|Returns|Raises):\n", doc, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2]))}


def names_in(section: str) -> set[str]:
    """The names that a section explains: ``name: What it is.``, or ``One, Another: When.``"""
    entries = re.findall(r"^    (\w[\w, ]*):", section, flags=re.MULTILINE)
    return {name.strip() for entry in entries for name in entry.split(",")}


@pytest.mark.parametrize("name", CALLABLES)
def test_each_argument_is_explained(name: str) -> None:
    function = CALLABLES[name]
    arguments = set(inspect.signature(function).parameters) - {"self", "cls"}
    assert names_in(sections(function).get("Args", "")) == arguments


@pytest.mark.parametrize("name", CALLABLES)
def test_each_result_is_explained(name: str) -> None:
    function = CALLABLES[name]
    returns = inspect.signature(function).return_annotation
    assert ("Returns" in sections(function)) == (returns not in ("None", None))


NEVER_RAISE = (
    "App.stop",
    "Consumer.stop",
    "Missed.once",
    "Outcome.archive",
    "Outcome.done",
    "Outcome.release",
    "Store.admin",
    "Store.close",
    "decoding.plain_class",
)


@pytest.mark.parametrize("name", CALLABLES)
def test_each_error_is_named(name: str) -> None:
    errors = names_in(sections(CALLABLES[name]).get("Raises", ""))
    assert bool(errors) != name.endswith(NEVER_RAISE)
    for error in errors:
        kind = getattr(pgqrs, error, None) or getattr(builtins, error, None)
        assert inspect.isclass(kind) and issubclass(kind, Exception), error


def test_each_public_class_and_error_says_what_it_is() -> None:
    for module in MODULES:
        for name, item in public(module):
            doc = vars(item).get("__doc__") if inspect.isclass(item) else item.__doc__
            assert doc and not doc.startswith(item.__name__ + "("), f"{name} has no docstring"


def test_each_property_says_what_it_is() -> None:
    for module in MODULES:
        for name, item in public(module):
            for attribute, found in vars(item).items() if inspect.isclass(item) else ():
                assert not isinstance(found, property) or found.__doc__, f"{name}.{attribute}"


def test_each_name_of_the_extension_says_what_it_is() -> None:
    for name, item in vars(_pgqrs).items():
        if name.startswith("_") or not callable(item):
            continue
        assert item.__doc__, name
        for method, found in vars(item).items() if inspect.isclass(item) else ():
            assert method.startswith("_") or found.__doc__, f"{name}.{method}"


def test_the_stub_has_the_docstrings_of_the_extension() -> None:
    stub = Path(pgqrs.__file__).with_name("_pgqrs.pyi")

    def words(text: str | None) -> list[str]:
        return (text or "").split()

    def compare(node: ast.AST, item: Any) -> None:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            found = getattr(item, node.name)
            assert words(ast.get_docstring(node)) == words(found.__doc__), node.name
            for inside in node.body:
                compare(inside, found)

    for node in ast.parse(stub.read_text()).body:
        compare(node, _pgqrs)


def test_all_of_the_package_is_looked_at() -> None:
    assert len(CALLABLES) > 100, len(CALLABLES)
