"""Mends V-Ray's spelling of options before they are read: one dash, a bare `-numa`. Knows names, not meanings.

A word is only ever changed into another spelling of itself; what no option can be is refused, because a word such as
`-nmua=4` would else be read as the letters n, m, u and a; so is an option that is said twice, of which click would
forget the first value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from dr.errors import BadInput, closest

LISTS = {"=A,B", "A,B", "=P,Q", "A,B,..."}  # how help shows an option that takes several values at once
BARE = {"numa": "0", "tail": "20"}  # options that may stand alone, and what they mean then


class Names(Struct, frozen=True):
    """What may follow a command: options longer than a letter and letters, both without dashes, and commands."""

    options: frozenset[str] = frozenset()
    letters: frozenset[str] = frozenset()
    with_value: frozenset[str] = frozenset()  # those of them that take one
    commands: Mapping[str, Names] = {}
    once: Mapping[str, str] = {}  # those that have one value, or one list of them: by what they are called in errors
    lists: frozenset[str] = frozenset()  # those among the latter that take a list


class _Said(Struct, frozen=True):
    """An option with one value that the user wrote: its name, with how many dashes, and of which command."""

    name: str
    dashes: str
    names: Names


def read_names(command: Any) -> Names:
    """The names that a click command, or a group with all that is below it, goes by."""
    found = [param for param in command.params if param.param_type_name == "option"]
    spelt = {name for param in found for name in (*param.opts, *param.secondary_opts)}
    single = [param for param in found if not (param.is_flag or param.count or param.multiple)]
    valued = {name for param in found if not (param.is_flag or param.count) for name in param.opts}
    return Names(
        options=frozenset(name[2:] for name in spelt if name.startswith("--")) | {"help"},
        letters=frozenset(name[1:] for name in spelt if not name.startswith("--")) | {"h"},
        with_value=frozenset(name.lstrip("-") for name in valued),
        commands={name: read_names(below) for name, below in getattr(command, "commands", {}).items()},
        once={name.lstrip("-"): param.opts[0].lstrip("-") for param in single for name in param.opts},
        lists=frozenset(param.opts[0].lstrip("-") for param in single if param.metavar in LISTS),
    )


def mend_dashes(words: Sequence[str], names: Names) -> list[str]:
    """The words as click reads them. Values, arguments and what stands after `--` stay as they are."""
    done: list[str] = []
    said: list[_Said] = []
    path = ["dr"]
    rest = list(words)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        if word[:1] != "-" or word == "-":
            done.append(word)
            path += [word] if word in names.commands else []
            names = names.commands.get(word, names)
            continue
        done.append(_mend(word, rest[:1], names, path))
        if name := names.once.get(_name(done[-1], names)):
            said.append(_Said(name, "--" if word.startswith("--") else "-", names))
        if rest and _wants_value(done[-1], names):
            done.append(rest.pop(0))
    _check_once(said)
    return done + rest


def _check_once(said: Sequence[_Said]) -> None:
    """Refuses an option that was said again, under whichever of its names. Each command has options of its own."""
    for each in said:
        times = sum(other.name == each.name and other.names is each.names for other in said)
        if times > 1:
            found = "twice" if times == 2 else f"{times} times"
            plural = each.name if each.name.endswith("s") else f"{each.name}s"
            several = f"several {plural} are written {each.dashes}{each.name}=A,B"
            hint = several if each.name in each.names.lists else "leave one out"
            raise BadInput(f"{each.dashes}{each.name}: expected once, found {found}; {hint}")


def command_path(words: Sequence[str], names: Names) -> list[str]:
    """[spawner, install]: the command that the words name, as far as they do."""
    path = []
    for word in words:
        if word in names.commands:
            path.append(word)
            names = names.commands[word]
    return path


def _mend(word: str, following: list[str], names: Names, path: list[str]) -> str:
    name, equals, value = word.lstrip("-").partition("=")
    if name in names.options and word.startswith((f"-{name}", f"--{name}")):
        if name in BARE and not equals:
            _check_stands_alone(word, following, names)
            return f"--{name}={BARE[name]}"
        return f"--{name}{equals}{value}"
    if not word.startswith("--") and _is_cluster(word[1:], names):
        return word[:2] + word[3:] if word[1] in names.with_value and word[2:3] == "=" else word
    raise BadInput(f"No such option: {word}{_hint(name, word, names, path)}")


def _hint(name: str, word: str, names: Names, path: list[str]) -> str:
    near = closest(name, names.options)
    dashes = "--" if word.startswith("--") else "-"
    return f" (did you mean {dashes}{near}?)" if near else f"; see {' '.join(path)} --help"


def _check_stands_alone(word: str, following: list[str], names: Names) -> None:
    """Refuses `-numa 4`: read as a bare `-numa`, it would quietly mean something else."""
    if following and following[0][:1] != "-" and following[0] not in names.commands:
        value = following[0]
        raise BadInput(f"{word} {value}: expected {word} or {word}=N, found a space; write {word}={value}")


def _is_cluster(letters: str, names: Names) -> bool:
    """`qv`, or `oa.exr`: flags, and at most one letter with a value, which is the rest."""
    for letter in letters:
        if letter not in names.letters:
            return False
        if letter in names.with_value:
            return True
    return bool(letters)


def _name(mended: str, names: Names) -> str:
    """Of the option; of letters the one with a value."""
    if mended.startswith("--"):
        return mended[2:].partition("=")[0]
    return next((letter for letter in mended[1:] if letter in names.with_value), "")


def _wants_value(mended: str, names: Names) -> bool:
    """Whether the next word is the value of this one."""
    if mended.startswith("--"):
        return "=" not in mended and mended[2:] in names.with_value
    valued = next((place for place, letter in enumerate(mended) if letter in names.with_value), None)
    return valued == len(mended) - 1
