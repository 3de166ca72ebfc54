"""The arguments of a script: declared in Lua and in Python, compared at import.

The head of each script declares its arguments as the Lua language server reads them:
`---@param lease_ms integer`. The Lua code that takes them from `ARGV` is generated. Python declares
the same arguments as a `NamedTuple` under `declares`, which refuses at import a name, a type or an
order that the head does not have; mypy then checks each call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

_LUA = Path(__file__).parents[1] / "ledger" / "lua"

_TYPE = r"string\[\]|string|integer|boolean|\{[^}]*\}\[\]"
_PARAMETER = re.compile(rf"^---@param (\w+) ({_TYPE})(?= |$)")
_PARAMETER_LINE = re.compile(r"^---@param .*$", re.MULTILINE)

#: What the types of a head are called here; a list of records by the length of a record.
_PYTHON = {"string": "str", "integer": "int", "boolean": "bool", "string[]": "list"}

#: The first argument of every script is the broker's prefix.
_FIRST = 2

#: The arguments of a script: a `NamedTuple` under `declares`.
Arguments: TypeAlias = tuple[Any, ...]

_Declared = TypeVar("_Declared", bound=Arguments)


class Parameter(NamedTuple):
    """An argument of a script; `type` is as the Lua head says it."""

    name: str
    type: str

    @property
    def fields(self) -> Sequence[str]:
        """Return the fields of each record of a list of records; none for other types."""
        if not self.type.startswith("{"):
            return ()
        return [field.partition(":")[0].strip() for field in self.type.strip("{}[]").split(",")]

    def taken_from(self, place: int) -> str:
        """Return the Lua expression for this argument, `ARGV[place]` on."""
        match self.type:
            case "integer":
                return f"tonumber(ARGV[{place}])"
            case "boolean":
                return f"ARGV[{place}] == '1'"
            case "string[]":
                return f"{{ unpack(ARGV, {place}) }}"
            case "string":
                return f"ARGV[{place}]"
            case _:
                return "{}"


@cache
def parameters(name: str) -> tuple[Parameter, ...]:
    """Return the arguments that a script's head declares; raise `TypeError` if it is wrong."""
    found = list[Parameter]()
    for line in _PARAMETER_LINE.findall(lua_source(name)):
        match = _PARAMETER.match(line)
        if match is None:
            raise TypeError(f"{name}.lua: cannot read {line!r}")
        found.append(Parameter(*match.groups()))
    if any(parameter.type.endswith("[]") for parameter in found[:-1]):
        raise TypeError(f"{name}.lua: only the last argument can be a list")
    return tuple(found)


def taking(name: str) -> str:
    """Return the Lua code that takes a script's arguments from `ARGV`."""
    declared = parameters(name)
    if not declared:
        return ""
    names = ", ".join(parameter.name for parameter in declared)
    values = ", ".join(one.taken_from(at) for at, one in enumerate(declared, _FIRST))
    code = f"local {names} = {values}\n"
    last, at = declared[-1], _FIRST + len(declared) - 1
    if last.fields:
        count = len(last.fields)
        record = ", ".join(f"{field} = ARGV[i + {n}]" for n, field in enumerate(last.fields))
        code += (
            f"for i = {at}, #ARGV, {count} do {last.name}[#{last.name} + 1] = {{ {record} }} end\n"
        )
    return code


class _Declaration(NamedTuple):
    """What is known of a class of arguments: its script, and what is converted to send them."""

    script: str
    flags: Sequence[int]
    list_type: str


_DECLARATIONS: dict[type, _Declaration] = {}


def declares(name: str) -> Callable[[type[_Declared]], type[_Declared]]:
    """Declare a `NamedTuple` as the arguments of a script.

    Raises `TypeError` at once unless the script's head has the same names and types in the same
    order: so a mistake shows when the module is imported, and mypy checks each call.
    """

    def declare(arguments: type[_Declared]) -> type[_Declared]:
        given = [(field, _python_type(hint)) for field, hint in get_type_hints(arguments).items()]
        taken = [(one.name, _python_name(one)) for one in parameters(name)]
        if given != taken:
            wrong = sorted(set(given) ^ set(taken)) or "their order"
            raise TypeError(f"{arguments.__name__} and {name}.lua do not agree: {wrong}")
        kinds = [kind for _, kind in given]
        flags = [place for place, kind in enumerate(kinds) if kind == "bool"]
        list_type = kinds[-1] if kinds and kinds[-1].startswith("list") else ""
        _DECLARATIONS[arguments] = _Declaration(name, flags, list_type)
        return arguments

    return declare


def declared_scripts() -> Sequence[str]:
    """Return the names of all scripts whose arguments are declared, one for each declaration."""
    return [one.script for one in _DECLARATIONS.values()]


def script_names() -> Sequence[str]:
    """Return the names of all scripts there are."""
    files = sorted(_LUA.glob("*/*.lua"))
    return [str(file.relative_to(_LUA).with_suffix("")) for file in files]


def _python_type(hint: Any) -> str:
    """Return what a field's annotation is called here."""
    if get_origin(hint) is None:
        return next(base.__name__ for base in (bool, int, str) if issubclass(hint, base))
    (item,) = get_args(hint)
    return f"list of {len(get_args(item))}" if get_args(item) else "list"


def _python_name(parameter: Parameter) -> str:
    """Return what a parameter's type is called here."""
    return f"list of {len(parameter.fields)}" if parameter.fields else _PYTHON[parameter.type]


def script_of(arguments: Arguments) -> tuple[str, Iterable[str | float]]:
    """Return the script whose declared arguments these are, and what it is sent for them."""
    name, flags, list_type = _DECLARATIONS[type(arguments)]
    sent: Sequence[Any] = arguments[:-1] if list_type else arguments
    if flags:
        sent = [*sent]
        for place in flags:
            sent[place] = int(sent[place])
    if list_type == "list":
        sent = (*sent, *arguments[-1])
    elif list_type:
        sent = (*sent, *chain.from_iterable(arguments[-1]))
    return name, sent


@cache
def lua_source(name: str) -> str:
    """Return the text of a Lua file."""
    return (_LUA / f"{name}.lua").read_text()
