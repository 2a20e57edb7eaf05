"""What stands in JSON for values that JSON doesn't have. Called by the extension for types that it doesn't know."""

from __future__ import annotations

import sys
from datetime import date, datetime, time
from typing import Any
from uuid import UUID


def plain(value: object) -> Any:
    """What is encoded in place of a value; ``NotImplemented`` if nothing can be."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and isinstance(value, msgspec.Struct):
        return _of_struct(value)
    return NotImplemented


def _of_struct(value: Any) -> Any:
    """Its fields by the names that they have in JSON; their values are encoded by the extension, which names their
    paths."""
    from msgspec import structs

    config = value.__struct_config__
    fields = [
        (field.encode_name, getattr(value, field.name))
        for field in structs.fields(value)
        if not config.omit_defaults or getattr(value, field.name) != field.default
    ]
    tag = [] if config.tag is None else [(config.tag_field, config.tag)]
    if config.array_like:
        return [*(content for _, content in tag), *(content for _, content in fields)]
    return dict([*tag, *fields])
