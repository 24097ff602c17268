"""What ``--help`` of a job looks like: required flags first, then groups with a sentence each, examples at the end.

pydantic-settings makes the parser; this module arranges the arguments it holds. See :mod:`cluster.commandline.flags`
for how a flag is declared.
"""

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from inspect import cleandoc, get_annotations
from itertools import groupby
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cluster.commandline.durations import typed

_NOTES = """\
URI is a local path or s3://bucket/prefix. LIST is comma-separated, or the flag is given several times.
Exit codes: 0 done; 1 failed; 2 bad usage or configuration, nothing was started; 3 finished, with failures that are
recorded."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wider columns, words left whole, and no ``--no-flag`` where that is the default."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=max(80, min(120, shutil.get_terminal_size().columns)))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction) and not action.const:
            return action.option_strings[0]
        return super()._format_action_invocation(action)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


@dataclass(frozen=True)
class _Flag:
    """A field and the class that declares it."""

    info: FieldInfo
    default: Any
    group: type[BaseModel]


def arrange(parser: argparse.ArgumentParser, flags: type[BaseModel], base: type[BaseModel]) -> None:
    """Describe, group and order the arguments that pydantic-settings gave ``parser`` for the fields of ``flags``.

    ``base``: the class with the flags of every job, shown last.
    """
    found = list(_fields(flags))
    groups = sorted(dict.fromkeys(flag.group for _, flag in found), key=lambda owner: _rank(owner, flags, base))
    fields = sorted(found, key=lambda field: groups.index(field[1].group))
    arguments = {action.dest: action for action in parser._actions}
    for group in parser._action_groups:
        group._group_actions.clear()  # such as "options", and one for each nested model
    required = [arguments[dest] for dest, flag in fields if flag.info.is_required()]
    parser.add_argument_group("required")._group_actions.extend(required)
    for owner, members in groupby(fields, key=lambda field: field[1].group):
        group = parser.add_argument_group(*_heading(owner, flags, base))
        group._group_actions.extend(arguments[dest] for dest, flag in members if not flag.info.is_required())
    group.add_argument("-h", "--help", action="help", help="Print this help.")
    for dest, flag in fields:
        _describe(arguments[dest], flag)
    shown = " ".join(f"{action.option_strings[0]} {action.metavar}" for action in required)
    parser.usage = " ".join(filter(None, ["%(prog)s", shown, "[flags]"]))
    parser.description = cleandoc(flags.__doc__ or "")
    examples = [_example(f"{parser.prog} {given}") for given in getattr(flags, "examples", ())]
    parser.epilog = "\n".join([*(["examples:"] if examples else []), *examples, "", _NOTES]).strip()


def _example(command: str) -> str:
    """Indented; continued on the next line, before a flag, where it is long."""
    lines = [""]
    for word in re.split(" (?=--)", command):
        if lines[-1] and len(lines[-1]) + len(word) > 90:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(f"  {line}" for line in lines)


def flag_name(*loc: int | str) -> str:
    """``("train", "batch_size")`` → ``--train.batch-size``."""
    return "--" + ".".join(str(part).replace("_", "-") for part in loc) if loc else "command line"


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, _Flag]]:
    """Dotted name → flag, nested models opened."""
    for name, info in model.model_fields.items():
        nested = [kind for kind in (info.annotation, *get_args(info.annotation)) if _is_model(kind)]
        if nested:
            yield from _fields(nested[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _Flag(info, info.get_default(), _owner(model, name))


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _owner(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The class whose group a field is in: the one that declares it first, not one that changes its default.

    A class without a docstring of its own continues the group of the class that it inherits from.
    """
    owner = [kind for kind in model.__mro__ if name in get_annotations(kind)][-1]
    return next(kind for kind in owner.__mro__ if kind.__dict__.get("__doc__"))


def _rank(owner: type[BaseModel], flags: type[BaseModel], base: type[BaseModel]) -> tuple[int, int]:
    """Groups as the flags' class inherits from them, nested settings after, what every job has last."""
    order = flags.__mro__
    nested = owner not in order
    return (2 if owner is base else int(nested), 0 if nested else order.index(owner))


def _heading(owner: type[BaseModel], flags: type[BaseModel], base: type[BaseModel]) -> tuple[str, str | None]:
    """Title and sentence of a group, from its class: ``WorkersFlags`` → workers; a title in model_config wins."""
    if owner is flags or owner is base:
        return "options" if owner is flags else "general", None
    words = re.findall("[A-Z][a-z]*", re.sub("(Flags|Config)$", "", owner.__name__))
    title = owner.model_config.get("title") or " ".join(words).lower()
    return title, cleandoc(owner.__doc__ or "").partition("\n\n")[0]


def _describe(action: argparse.Action, flag: _Flag) -> None:
    text = (flag.info.description or "").replace("%", "%%")
    if isinstance(action, argparse.BooleanOptionalAction):
        action.const = flag.default  # which BooleanOptionalAction itself leaves None
        if flag.default is True:
            text += " (default: on)"
    else:
        action.metavar = _metavar(flag.info)
        if shown := _default(flag.default):
            text += f" (default: {shown})"
    action.help = text


def _default(value: Any) -> str:
    """As it would be typed; empty where there is nothing to show."""
    if value is None or value == "" or isinstance(value, bool) or repr(value) == "PydanticUndefined":
        return ""
    if isinstance(value, (list, tuple, dict)):
        return ",".join(map(str, value)) if not isinstance(value, dict) else ""
    if isinstance(value, timedelta):
        return typed(value)
    return f"{value:g}" if isinstance(value, float) else str(value).replace("%", "%%")


def _metavar(info: FieldInfo) -> str:
    extra = info.json_schema_extra
    named = extra.get("metavar") if isinstance(extra, dict) else None
    return str(named) if named else _type_name(info.annotation)


def _type_name(kind: Any) -> str:
    """A word for a type: N, X, TEXT, LIST, {a,b}; what an Annotated alias declares, such as URI, wins."""
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part is not type(None)]
    if origin is Annotated:
        for note in parts[1:]:
            if isinstance(extra := getattr(note, "json_schema_extra", None), dict) and "metavar" in extra:
                return str(extra["metavar"])
        return _type_name(parts[0])
    if origin is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if origin in (list, tuple):
        return "LIST"
    if origin is dict:
        return f"NAME={_type_name(parts[1])}"
    if len(parts) > 1 and get_origin(parts[0]) is Literal:  # words, or something else
        return "{" + ",".join([*map(str, get_args(parts[0])), *map(_type_name, parts[1:])]) + "}"
    if parts:  # a union
        return _type_name(parts[0])
    return {int: "N", float: "X", bool: "BOOL"}.get(kind, "TEXT")
