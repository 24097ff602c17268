"""YAML configuration checked by a pydantic model: every problem at once, each with its place in the file."""

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

    def problem(self, keys: Sequence[str | int], message: str, hint: str = "") -> Problem:
        """For checks that a model cannot make by itself, such as whether a file exists."""
        return Problem(self.place(*keys), message, hint)


def read_yaml(uri: str | PurePath) -> ConfigFile:
    """Reads a mapping from a local or ``s3://`` YAML file.

    Raises:
        ConfigError: unreadable, not YAML, not a mapping, or a key given twice.
    """
    name = str(uri)
    try:
        text = Storage.open(name).read_bytes().decode()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (StorageError, UnicodeDecodeError) as error:
        raise ConfigError(Problem(name, str(error))) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(Problem(f"{name}:{line}", f"not valid YAML: {error.problem}")) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(Problem(name, f"not valid YAML: {error}")) from error
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(Problem(name, "is not a mapping", "expected lines such as 'key: value'"))
    if repeated := list(_repeated_keys(root)):
        raise ConfigError([Problem(f"{name}:{line} {key}", "key given twice") for key, line in repeated])
    return ConfigFile(name, data, root)


def check(file: ConfigFile, model: type[M], overrides: Mapping[str, Any] | None = None) -> M:
    """The model made of the file's data, where ``overrides`` (from flags; None is not given) replace top-level keys.

    Raises:
        ConfigError: with every problem that the model finds.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return model.model_validate(file.data | given)
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False, include_input=False):
            keys = detail["loc"]
            flag = keys[0] if keys and keys[0] in given else None
            place = f"--{str(flag).replace('_', '-')}" if flag else file.place(*keys)
            problems.append(problem_of(detail, place, model))
        raise ConfigError(problems) from error


def load_yaml(uri: str | PurePath, model: type[M], overrides: Mapping[str, Any] | None = None) -> M:
    """:func:`read_yaml` and :func:`check` in one."""
    return check(read_yaml(uri), model, overrides)


def problem_of(detail: ErrorDetails, place: str, model: type[BaseModel]) -> Problem:
    """A pydantic error as a problem, in plain words."""
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    match detail["type"]:
        case "extra_forbidden":
            return Problem(place, "unknown key", nearest(key, _field_names(model.model_json_schema())))
        case "missing":
            return Problem(place, "missing")
        case _:
            return Problem(place, detail["msg"].removeprefix("Value error, "))


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


def _repeated_keys(node: yaml.Node) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
