"""YAML configuration checked by a pydantic model: every problem at once, each with its place in the file."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cluster.storage import Storage, StorageError

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands, what it is, and what to do about it."""

    place: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(Exception):
    """Configuration or usage is wrong; nothing was started."""

    def __init__(self, problems: Sequence[Problem] | Problem) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class ConfigFile:
    """A parsed YAML mapping that knows where its keys stand."""

    name: str
    data: dict[str, Any]
    problems: list[Problem]
    """Found while reading: keys given twice, and numbers that YAML reads otherwise than people do."""
    _root: yaml.MappingNode

    def place(self, *keys: str | int) -> str:
        """``styles.yaml:7 styles[0].id``; a missing key is placed at its nearest parent."""
        line, path = 1, ""
        node: yaml.Node | None = self._root
        for key in keys:
            node, mark = _step(node, key)
            line = mark if mark else line
            path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else key
        return f"{self.name}:{line} {path}".rstrip()

    def written(self, *keys: str | int) -> str | None:
        """The text of a scalar as it stands in the file; None if there is none."""
        node: yaml.Node | None = self._root
        for key in keys:
            node, _ = _step(node, key)
        return node.value if isinstance(node, yaml.ScalarNode) else None

    def problem(self, keys: Sequence[str | int], message: str, hint: str = "") -> Problem:
        """For checks that a model cannot make by itself, such as whether a file exists."""
        return Problem(self.place(*keys), message, hint)


class _Loader(yaml.SafeLoader):
    """YAML 1.1, less its surprises: ``yes``, ``on`` and dates stay text, and so do numbers such as 010 (octal) or 1:30
    (sexagesimal), which :func:`_ambiguous` reports; keys are text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _boolean(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool | str:
    return {"true": True, "false": False}.get(node.value.lower(), str(node.value))


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    if _ambiguous(node):
        return str(node.value)
    return loader.construct_yaml_int(node) if node.tag.endswith(":int") else loader.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: str(node.value))


def _ambiguous(node: yaml.Node) -> bool:
    """A number whose YAML 1.1 value is not what its digits say."""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return False
    if node.tag == "tag:yaml.org,2002:int":
        return not re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", node.value)
    return node.tag == "tag:yaml.org,2002:float" and bool(re.search("[_:]", node.value))


def read_yaml(uri: str | PurePath) -> ConfigFile:
    """Reads a mapping from a local or ``s3://`` YAML file.

    Raises:
        ConfigError: unreadable, not YAML, or not a mapping.
    """
    name = str(uri)
    try:
        loader = _Loader(Storage.open(name).read_bytes().decode())
        root = loader.get_single_node()
        problems = list(_misread(root, name))
        data: Any = loader.construct_document(root) if root is not None else None
    except (StorageError, UnicodeDecodeError) as error:
        raise ConfigError(Problem(name, str(error))) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(Problem(f"{name}:{line}", f"not valid YAML: {error.problem}")) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(Problem(name, f"not valid YAML: {error}")) from error
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(Problem(name, "is not a mapping", "expected lines such as 'key: value'"))
    return ConfigFile(name, data, problems, root)


def check(file: ConfigFile, model: type[M], overrides: Mapping[str, Any] | None = None) -> M:
    """The model made of the file's data, where ``overrides`` (from flags; None is not given) replace top-level keys.

    Raises:
        ConfigError: with every problem of the file and every one that the model finds.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    problems = list(file.problems)
    try:
        checked = model.model_validate(file.data | given)
        problems += [
            Problem(file.place(*keys), f"must be a number, not {json.dumps(value)}")
            for keys, value in _booleans_as_numbers(file.data, checked.model_dump())
        ]
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            keys = detail["loc"]
            if keys and keys[0] in given:
                problems.append(problem_of(detail, f"--{str(keys[0]).replace('_', '-')}", model))
            else:
                problems.append(problem_of(detail, file.place(*keys), model, file.written(*keys)))
    if problems:
        raise ConfigError(problems)
    return checked


def _booleans_as_numbers(
    given: Any, taken: Any, keys: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], bool]]:
    """Where the model took ``true`` for 1, which pydantic does, with what stands in the file."""
    if isinstance(given, bool):
        if not isinstance(taken, bool) and isinstance(taken, (int, float)):
            yield keys, given
    elif isinstance(given, dict) and isinstance(taken, dict):
        for key in given.keys() & taken.keys():
            yield from _booleans_as_numbers(given[key], taken[key], (*keys, key))
    elif isinstance(given, list) and isinstance(taken, (list, tuple)):
        for i, pair in enumerate(zip(given, taken, strict=False)):
            yield from _booleans_as_numbers(*pair, (*keys, i))


def load_yaml(uri: str | PurePath, model: type[M], overrides: Mapping[str, Any] | None = None) -> M:
    """:func:`read_yaml` and :func:`check` in one."""
    return check(read_yaml(uri), model, overrides)


def problem_of(
    detail: ErrorDetails, place: str, model: type[BaseModel] | None = None, written: str | None = None
) -> Problem:
    """A pydantic error as a problem, in plain words and with the value given.

    ``written``: the value as it stands in a file, for advice on quoting.
    """
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return Problem(place, "unknown key", nearest(key, _field_names(model.model_json_schema())) if model else "")
    if kind == "missing":
        return Problem(place, "missing")
    if value is None:
        return Problem(place, "has no value")
    if kind == "value_error":
        return Problem(place, detail["msg"].removeprefix("Value error, "))
    limit = next(iter(detail.get("ctx", {}).values()), "")
    words = {**_WORDS, "string_pattern_mismatch": f"must match {limit}"}.get(kind, _plain(detail["msg"]))
    shown = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    hint = f'quote it: "{written}"' if kind == "string_type" and written else ""
    return Problem(place, f"{words}, not {shown if len(shown) <= 80 else shown[:80] + '…'}", hint)


_WORDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a mapping of keys to values"),
    "string_type": "must be text",
}


def _plain(message: str) -> str:
    """``Input should be greater than 0`` → ``must be greater than 0``."""
    return re.sub("^(Input|String|List|Value) should (be |have )?", lambda m: f"must {m[2] or ''}", message)


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint at the known word that was probably meant; empty if none is similar."""
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _field_names(schema: object) -> list[str]:
    """Every property named in a JSON schema."""
    if not isinstance(schema, dict):
        return [name for item in schema for name in _field_names(item)] if isinstance(schema, list) else []
    own = schema.get("properties")
    return [*(own if isinstance(own, dict) else ()), *(name for item in schema.values() for name in _field_names(item))]


def _step(node: yaml.Node | None, key: str | int) -> tuple[yaml.Node | None, int | None]:
    """The node under ``key`` and its line; (None, None) where there is none."""
    if isinstance(node, yaml.MappingNode):
        for key_node, value in node.value:
            if key_node.value == str(key):
                return value, key_node.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key].start_mark.line + 1
    return None, None


def _misread(root: yaml.Node | None, name: str) -> Iterator[Problem]:
    """Keys given twice, and ambiguous numbers. An aliased node is visited once."""
    nodes, seen = [root], set[int]()
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            nodes += [value for _, value in node.value]
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for i, key in enumerate(keys):
                if key.value in {former.value for former in keys[:i]}:
                    yield Problem(f"{name}:{key.start_mark.line + 1} {key.value}", "key given twice")
        elif node is not None and _ambiguous(node):
            meant = _digits(node.value)
            yield Problem(
                f"{name}:{node.start_mark.line + 1}",
                f"{node.value} is not a plain number in YAML",
                f'quote it for text: "{node.value}"' + (f"; or write {meant}" if meant else ""),
            )


def _digits(text: str) -> str:
    """``010`` → ``10``, ``1_000`` → ``1000``; empty for other notations."""
    plain = text.replace("_", "")
    return str(int(plain)) if re.fullmatch("[-+]?[0-9]+", plain) else ""
