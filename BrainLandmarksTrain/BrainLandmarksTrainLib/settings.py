"""Settings as data: dataclasses to and from JSON or YAML files, and their JSON schema.

A group of settings is a frozen dataclass. What a value may be follows from its type hint and from
what `setting` says about it; the same hints check a file, refuse unknown names and make the schema.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.json_file import read_json

T = TypeVar("T")

Range = tuple[float, float]
"""Lowest and highest value; values are drawn uniformly between them."""

IntRange = tuple[int, int]
"""Lowest and highest whole number, both included."""

_WORDS = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false",
    type(None): "null",
}  # fmt: skip
_JSON_TYPES = {
    int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null",
}  # fmt: skip


_MANY = (tuple, collections.abc.Mapping)

REQUIRED: Any = dataclasses.MISSING
"""Default of a setting that has none: a file must give it."""


def setting(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    formerly: str = "",
) -> Any:
    """A field of a settings dataclass.

    Args:
        default: `REQUIRED` where there is none.
        text: what it means.
        low: lowest number, included.
        high: highest number, included.
        choices: the texts it may be.
        formerly: its name in files of earlier versions, which are still read.
    """
    metadata = {"text": text, "low": low, "high": high, "choices": choices, "formerly": formerly}
    if isinstance(default, (dict, list)) or dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


# Values to settings -------------------------------------------------------------------------------


def from_values(cls: type[T], values: Mapping[str, Any], what: str = "setting") -> T:
    """Build a settings dataclass from plain values.

    >>> from_values(TrainingConfig, {"steps": 100}, "training setting").steps
    100

    Args:
        what: How an error message calls a value.

    Raises:
        UserError: an unknown name (the message gives the nearest known one), or a value of the
            wrong type or outside its bounds.
    """
    return _group(cls, values, what, "")


def _group(cls: type[T], values: Any, what: str, path: str) -> T:
    if not isinstance(values, collections.abc.Mapping):
        raise UserError(f"{what} {path.rstrip('.')!r} must hold one value per name.")
    hints = get_type_hints(cls)
    about = {field.name: field.metadata for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    former = {data["formerly"]: name for name, data in about.items() if data.get("formerly")}
    checked: dict[str, Any] = {}
    for given, value in values.items():
        name = former.get(given, given)
        if name not in about:
            near = difflib.get_close_matches(str(name), about, n=1, cutoff=0.0)
            raise UserError(f"unknown {what} {path + str(name)!r}; did you mean {near[0]!r}?")
        checked[name] = _value(value, hints[name], what, path + name)
        _check_bounds(checked[name], about[name], what, path + name)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in checked:
            raise UserError(f"{what} {path + field.name!r} is missing; add it.")
    return cls(**checked)


def _value(value: Any, hint: Any, what: str, path: str) -> Any:
    hint = _without_none(hint) if value is not None else hint
    if dataclasses.is_dataclass(hint):
        return _group(typing.cast(type, hint), value, what, path + ".")
    kinds = get_args(hint)
    if get_origin(hint) is collections.abc.Mapping:
        if not isinstance(value, collections.abc.Mapping) or not value:
            raise UserError(f"{what} {path!r} must hold one value per name.")
        return {str(k): _value(v, kinds[1], what, f"{path}.{k}") for k, v in value.items()}
    if get_origin(hint) is tuple:
        return _list(value, kinds, what, path)
    allowed = kinds if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = tuple(kind for kind in allowed if kind in _WORDS)
    if (isinstance(value, bool) and bool not in plain) or not isinstance(value, plain):
        expected = " or ".join(_WORDS[kind] for kind in plain)
        raise UserError(f"{what} {path!r} must be {expected}, not {value!r}.")
    return value


def _without_none(hint: Any) -> Any:
    """The group or list that may also be left empty; any other hint as it is."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if get_origin(hint) in (Union, types.UnionType) and len(kinds) == 1:
        inner = kinds[0]
        if dataclasses.is_dataclass(inner) or get_origin(inner) in _MANY:
            return inner
    return hint


def _list(value: Any, kinds: tuple[Any, ...], what: str, path: str) -> tuple[Any, ...]:
    many = kinds[-1] is Ellipsis
    listed = isinstance(value, (list, tuple)) and (many or len(value) == len(kinds))
    try:
        if not listed:
            raise UserError("")
        hints = kinds[:1] * len(value) if many else kinds
        return tuple(_value(v, hint, what, path) for v, hint in zip(value, hints, strict=True))
    except UserError:
        one = "text value" if kinds[0] is str else _WORDS[kinds[0]].removeprefix("a ")
        expected = f"a list of {one}s" if many else f"{len(kinds)} {one}s"
        raise UserError(f"{what} {path!r} must be {expected}, not {value!r}.") from None


def _check_bounds(value: Any, about: Mapping[str, Any], what: str, path: str) -> None:
    choices = about.get("choices") or ()
    if choices and value not in choices:
        raise UserError(f"{what} {path!r} is {value!r}; choose one of {', '.join(choices)}.")
    numbers = value if isinstance(value, tuple) else (value,)
    if not about or not all(isinstance(n, (int, float)) for n in numbers):
        return
    if not all(math.isfinite(n) for n in numbers):
        raise UserError(f"{what} {path!r} must be finite, not {value!r}.")
    low, high = about.get("low"), about.get("high")
    if any((low is not None and n < low) or (high is not None and n > high) for n in numbers):
        if low is None or high is None:
            side = f"at least {low:g}" if low is not None else f"at most {high:g}"
        else:
            side = f"between {low:g} and {high:g}"
        raise UserError(f"{what} {path!r} must be {side}, not {value!r}.")
    if len(numbers) == 2 and numbers[0] > numbers[1]:
        raise UserError(f"{what} {path!r} must give the lower value first, not {value!r}.")


# Settings to values, schema -----------------------------------------------------------------------


def to_values(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain JSON values."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(settings))))


def schema(cls: type, title: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the files that `from_values` accepts for a dataclass."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **_group_schema(cls, with_schema_entry=True),
    }


def _group_schema(cls: Any, with_schema_entry: bool = False) -> dict[str, Any]:
    hints = get_type_hints(cls)
    properties: dict[str, Any] = {"$schema": {"type": "string"}} if with_schema_entry else {}
    required = []
    for field in dataclasses.fields(cls):
        entry = {"description": field.metadata["text"]} if field.metadata.get("text") else {}
        entry.update(_value_schema(hints[field.name], field.metadata))
        if field.default is not dataclasses.MISSING:
            entry["default"] = json.loads(json.dumps(field.default))
        elif field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        properties[field.name] = entry
    group = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**group, "required": required} if required else group


def _value_schema(hint: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    inner = _without_none(hint)
    if inner is not hint:
        return {"anyOf": [_value_schema(inner, about), {"type": "null"}]}
    if dataclasses.is_dataclass(hint):
        return _group_schema(hint)
    kinds = get_args(hint)
    if get_origin(hint) is collections.abc.Mapping:
        inner = _value_schema(kinds[1], {})
        return {"type": "object", "minProperties": 1, "additionalProperties": inner}
    if get_origin(hint) is tuple:
        array = {"type": "array", "items": _value_schema(kinds[0], about)}
        if kinds[-1] is Ellipsis:
            return array
        return {**array, "minItems": len(kinds), "maxItems": len(kinds)}
    allowed = kinds if get_origin(hint) in (Union, types.UnionType) else (hint,)
    names = [_JSON_TYPES[kind] for kind in allowed]
    entry: dict[str, Any] = {"type": names[0] if len(names) == 1 else names}
    for key, word in (("low", "minimum"), ("high", "maximum")):
        if about.get(key) is not None:
            entry[word] = about[key]
    if about.get("choices"):
        entry["enum"] = list(about["choices"])
    return entry


# Files --------------------------------------------------------------------------------------------


def read_settings(path: str | Path, what: str = "training settings") -> dict[str, Any]:
    """Names and values of a .json, .yaml or .yml file.

    Args:
        what: How an error message calls the file.

    Raises:
        UserError: the file is missing, cannot be parsed, or is no list of names and values.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{what} {path.name} not found; check the path.")
    if path.suffix.lower() in (".yaml", ".yml"):
        values = _read_yaml(path, what)
    else:
        values = read_json(path, f"the file of {what}")
    if not isinstance(values, dict):
        raise UserError(f"{what} {path.name} must hold one setting per name.")
    return values


def _read_yaml(path: Path, what: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise UserError(
            f"reading {path.name} needs PyYAML: pip install pyyaml, or write the settings as JSON."
        ) from None
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _yaml_loader())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path.name} cannot be read: {error}.") from None
    except yaml.YAMLError:
        raise UserError(f"{what} {path.name} are not valid YAML.") from None


@functools.cache
def _yaml_loader() -> Any:
    """PyYAML's safe loader, for which 1e-3 is a number as well: YAML 1.1 wants it as 1.0e-3."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader
