"""Decodes payloads as the types of their queues. Payloads are encoded by the extension, in Rust.

A type is inspected once, and becomes a function: so a type that can't be represented in JSON is reported when the
consumer is made, and not by each message. Numbers keep their digits if their type can hold them: a ``Decimal`` holds
all of them, a ``float`` is the nearest one, and by default a number with a fraction is a ``float``.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import json
import sys
import types
import typing
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from pgqrs import _pgqrs

if sys.version_info >= (3, 11):
    from typing import NotRequired, Required, is_typeddict
else:
    from typing_extensions import NotRequired, Required, is_typeddict

T = TypeVar("T")

Decode = Callable[[str], T]

Build = Callable[[Any, str], Any]
"""From what ``json.loads`` returns for a payload, and its path in it."""


class Mismatch(ValueError):
    """A payload doesn't have the queue's type.

    Args:
        path: Where in the payload it is, as in ``payload.items[3].price``.
        reason: What is wrong there.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def decoder(carries: Any) -> Decode[Any]:
    """Makes the function that decodes payloads of a type.

    Args:
        carries: The type; ``None`` is any.

    Returns:
        A function from JSON text to a payload. It raises :class:`Mismatch` for a payload that isn't of the type.

    Raises:
        TypeError: The type can't be represented in JSON.
    """
    validator = _validator(carries)
    if validator is not None:
        return lambda raw: _validated(validator.validate_json, raw, "payload")
    if _is_struct(carries):
        from msgspec.json import Decoder

        return partial(_validated, Decoder(carries).decode, path="payload")
    build = _Builders().of(carries)

    def decode(raw: str) -> Any:
        try:
            return build(json.loads(raw, parse_float=Decimal), "payload")
        except Mismatch:
            raise
        except Exception as error:
            # Python reads no integers of more than 4,300 digits by default, and no values that are nested too deeply;
            # Decimal has limits too, and a class may raise anything.
            raise Mismatch("payload", str(error) or type(error).__name__) from error

    return decode


def plain_class(carries: Any) -> type[Any] | None:
    """Finds the class that a payload can be checked against by ``isinstance``.

    Args:
        carries: The type of a queue's payloads.

    Returns:
        The class; ``None`` if there is none, and only decoding can check it.
    """
    if typing.get_origin(carries) is not None or not isinstance(carries, type):
        return None
    if is_typeddict(carries):
        return dict
    return None if carries in (object, float, Decimal) else carries


def _validator(carries: Any) -> Any:
    """That of a class of pydantic's, which has its own ways."""
    return getattr(carries, "__pydantic_validator__", None) if isinstance(carries, type) else None


def _is_struct(carries: Any) -> bool:
    """Whether it is a class of msgspec's, which decodes it by itself."""
    msgspec = sys.modules.get("msgspec")
    return msgspec is not None and isinstance(carries, type) and issubclass(carries, msgspec.Struct)


def _struct(hint: type[Any]) -> Build:
    """Within another type. Its own decoder reads JSON again, since it keeps all digits of a `Decimal`."""
    from msgspec.json import Decoder

    decode = Decoder(hint).decode
    return lambda value, path: _validated(decode, _pgqrs.encode(value), path)


def _validated(validate: Callable[[Any], Any], value: Any, path: str) -> Any:
    try:
        return validate(value)
    except Exception as error:
        raise Mismatch(path, str(error) or type(error).__name__) from error


def _floats(value: Any) -> Any:
    """Numbers with a fraction as floats, all the way down."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    return value


def _named(value: Any) -> str:
    """A JSON value's kind, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, (int, Decimal)):
        return "a number"
    return "an array" if isinstance(value, list) else "an object"


class _Builders:
    """One for each type; a type that contains itself is looked up when a payload needs it."""

    def __init__(self) -> None:
        self._known: dict[Any, Build] = {}

    def of(self, hint: Any) -> Build:
        try:
            if hint in self._known:
                return lambda value, path: self._known[hint](value, path)
        except TypeError:
            # Not hashable, as with a Literal of a list: then it can't contain itself either.
            return self._made(hint)
        self._known[hint] = _never
        self._known[hint] = self._made(hint)
        return self._known[hint]

    def _made(self, hint: Any) -> Build:
        if hint is None or hint is Any or hint is object or isinstance(hint, TypeVar):
            return lambda value, path: _floats(value)
        if hint is type(None):
            return _exactly(type(None), "null")
        alias = getattr(hint, "__value__", None) or getattr(hint, "__supertype__", None)
        if alias is not None:
            return self.of(alias)
        origin = typing.get_origin(hint)
        if origin is not None:
            return self._generic(hint, origin, typing.get_args(hint))
        if not isinstance(hint, type):
            raise TypeError(f"payload: {hint!r} can't be represented in JSON")
        return self._class(hint)

    def _generic(self, hint: Any, origin: Any, arguments: tuple[Any, ...]) -> Build:
        if origin is typing.Annotated or origin in (Required, NotRequired):
            return self.of(arguments[0])
        if origin is typing.Union or origin is types.UnionType:
            members = [_type(argument) for argument in arguments]
            _check_distinct(members)
            return self._union([(self.of(member), _names(member)) for member in members])
        if origin is typing.Literal:
            return _literal(arguments)
        if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
            return _array(self.of(_type(arguments[0])), list)
        if origin is tuple:
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return _array(self.of(_type(arguments[0])), tuple)
            return _row([self.of(_type(argument)) for argument in arguments])
        if origin in (dict, collections.abc.Mapping):
            if arguments[0] is not str:
                raise TypeError(f"payload: the keys of a JSON object are text, and those of {hint!r} aren't")
            return _object(self.of(_type(arguments[1])))
        if isinstance(origin, type) and (dataclasses.is_dataclass(origin) or is_typeddict(origin)):
            return self._class(origin)
        raise TypeError(f"payload: {hint!r} can't be represented in JSON")

    def _class(self, hint: type[Any]) -> Build:
        validator = _validator(hint)
        if validator is not None:
            return lambda value, path: _validated(validator.validate_python, value, path)
        if _is_struct(hint):
            return _struct(hint)
        if hint in _READ:
            return _from_text(hint)
        if is_typeddict(hint):
            return self._typed_dict(hint)
        if dataclasses.is_dataclass(hint):
            return self._dataclass(hint)
        if issubclass(hint, enum.Enum):
            return _member(hint)
        if hint is float:
            return _float
        if hint is Decimal:
            return _decimal
        if hint is int:
            return _int
        if hint in (list, tuple):
            return _array(lambda value, path: _floats(value), hint)
        if hint is dict:
            return _object(lambda value, path: _floats(value))
        if hint is str:
            return _exactly(str, "a string")
        if hint is bool:
            return _exactly(bool, "a boolean")
        raise TypeError(f"payload: `{hint.__qualname__}` can't be represented in JSON")

    def _union(self, members: list[tuple[Build, frozenset[str] | None]]) -> Build:
        """The first that fits; among those with fields, the one whose fields are most nearly those of the object."""

        def build(value: Any, path: str) -> Any:
            reasons: list[str] = []
            fitting: list[tuple[tuple[int, int], Any]] = []
            for build, names in members:
                try:
                    built = build(value, path)
                except Mismatch as mismatch:
                    reasons.append(str(mismatch))
                    continue
                if names is None or not isinstance(value, dict):
                    return built
                known = len(names & value.keys())
                fitting.append(((known, known - len(names)), built))
            if fitting:
                return max(fitting, key=lambda one: one[0])[1]
            raise Mismatch(path, "none of its types fits: " + "; ".join(dict.fromkeys(reasons)))

        return build

    def _typed_dict(self, hint: Any) -> Build:
        hints = typing.get_type_hints(hint, include_extras=True)
        fields = {name: self.of(_type(kind)) for name, kind in hints.items()}
        required: frozenset[str] = hint.__required_keys__

        def build(value: Any, path: str) -> Any:
            if not isinstance(value, dict):
                raise Mismatch(path, f"expected an object, not {_named(value)}")
            for name in required:
                if name not in value:
                    raise Mismatch(path, f"`{name}` is missing")
            # What isn't known is passed over, as with the others.
            return {
                name: fields[name](item, f"{path}.{name}") for name, item in value.items() if name in fields
            }

        return build

    def _dataclass(self, hint: Any) -> Build:
        hints = typing.get_type_hints(hint, include_extras=True)
        fields = {field.name: field for field in dataclasses.fields(hint) if field.init}
        builds = {name: self.of(_type(hints[name])) for name in fields}
        required = [
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]

        def build(value: Any, path: str) -> Any:
            if not isinstance(value, dict):
                raise Mismatch(path, f"expected an object, not {_named(value)}")
            for name in required:
                if name not in value:
                    raise Mismatch(path, f"`{name}` is missing")
            known = {
                name: build(value[name], f"{path}.{name}") for name, build in builds.items() if name in value
            }
            try:
                return hint(**known)
            except (TypeError, ValueError) as error:
                # Its own `__post_init__` has a say too.
                raise Mismatch(path, str(error)) from error

        return build


def _datetime(text: str) -> datetime:
    # Python 3.10 doesn't know this zone.
    return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)


_READ: dict[type[Any], tuple[Callable[[str], Any], str]] = {
    datetime: (_datetime, "a time, as in 2030-01-31T12:00:00+00:00"),
    date: (date.fromisoformat, "a date, as in 2030-01-31"),
    time: (time.fromisoformat, "a time of the day, as in 12:00:00"),
    UUID: (UUID, "a UUID"),
}


def _from_text(hint: type[Any]) -> Build:
    """Types whose values are text in JSON."""
    read, expected = _READ[hint]

    def build(value: Any, path: str) -> Any:
        if not isinstance(value, str):
            raise Mismatch(path, f"expected {expected}, not {_named(value)}")
        try:
            return read(value)
        except ValueError:
            raise Mismatch(path, f"expected {expected}") from None

    return build


def _names(hint: Any) -> frozenset[str] | None:
    """The names of a type's fields in JSON, if it has some that are known here."""
    if not isinstance(hint, type):
        return None
    if dataclasses.is_dataclass(hint):
        return frozenset(field.name for field in dataclasses.fields(hint))
    return frozenset(typing.get_type_hints(hint)) if is_typeddict(hint) else None


def _check_distinct(members: list[Any]) -> None:
    """Two types with the same fields are the same in JSON, unless a ``Literal`` distinguishes them."""
    seen: dict[Any, Any] = {}
    for member in members:
        names = _names(member)
        if names is None:
            continue
        hints = typing.get_type_hints(member)
        tags = {(name, hint) for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}
        key = (names, frozenset(tags))
        other = seen.setdefault(key, member)
        if other is not member:
            raise TypeError(
                f"payload: `{other.__qualname__}` and `{member.__qualname__}` have the same fields, so they are "
                'the same in JSON; give each a field such as `kind: Literal["placed"] = "placed"`'
            )


def _type(hint: Any) -> Any:
    return type(None) if hint is None else hint


def _never(value: Any, path: str) -> Any:
    raise AssertionError("a type is complete before a payload is decoded")


def _exactly(kind: type[Any], expected: str) -> Build:
    def build(value: Any, path: str) -> Any:
        if type(value) is not kind:
            raise Mismatch(path, f"expected {expected}, not {_named(value)}")
        return value

    return build


def _int(value: Any, path: str) -> int:
    if type(value) is not int:
        fraction = "a number with a fraction" if isinstance(value, Decimal) else _named(value)
        raise Mismatch(path, f"expected an integer, not {fraction}")
    return value


def _float(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise Mismatch(path, f"expected a number, not {_named(value)}")
    try:
        return float(value)
    except OverflowError:
        raise Mismatch(path, "a number beyond what a float holds") from None


def _decimal(value: Any, path: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise Mismatch(path, f"expected a number, not {_named(value)}")
    return Decimal(value)


def _literal(members: tuple[Any, ...]) -> Build:
    def build(value: Any, path: str) -> Any:
        for member in members:
            plain = member.value if isinstance(member, enum.Enum) else member
            if type(value) is type(plain) and value == plain:
                return member
        expected = ", ".join(repr(member) for member in members)
        raise Mismatch(path, f"expected one of {expected}")

    return build


def _member(of: type[enum.Enum]) -> Build:
    def build(value: Any, path: str) -> Any:
        try:
            return of(_floats(value))
        except ValueError as error:
            raise Mismatch(path, str(error)) from None

    return build


def _array(build: Build, kind: type[Any]) -> Build:
    def build_all(value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise Mismatch(path, f"expected an array, not {_named(value)}")
        return kind(build(item, f"{path}[{place}]") for place, item in enumerate(value))

    return build_all


def _row(builds: list[Build]) -> Build:
    def build(value: Any, path: str) -> Any:
        if not isinstance(value, list) or len(value) != len(builds):
            raise Mismatch(path, f"expected an array of {len(builds)}")
        return tuple(
            build(item, f"{path}[{place}]") for place, (build, item) in enumerate(zip(builds, value))
        )

    return build


def _object(build: Build) -> Build:
    def build_all(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise Mismatch(path, f"expected an object, not {_named(value)}")
        return {key: build(item, f"{path}.{key}") for key, item in value.items()}

    return build_all
