"""What may be said of a host in an inventory: the keys, what their values may be, and what is a secret.

Names and values travel to command lines, files and shells of many machines, so they are of few characters; a value that
may hold a password by mistake (``jump: user:secret@host``) is not repeated in the problem.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from smallq_deploy.fleet.inventory.ranges import quoted
from smallq_deploy.package.vendortree import VENDOR_PATTERN
from smallq_deploy.package.yamlfile import Value

MAX_TIMEOUT = 86_400.0  # seconds
SECRET = re.compile(r"(?i)pass(word|wd|phrase|code)?s?(_|-|$)|secret|token|private_key$|credential|vault")
NO_SECRETS = "an inventory holds no secrets: use a key file (key: PATH) or the ssh agent, and sudo without a password"
_NAME = re.compile(r"(?=[^A-Za-z0-9]*[A-Za-z0-9])[A-Za-z0-9_:][A-Za-z0-9._:-]{0,252}(?<![^:]:)")
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,126}")
_USER = r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}"
_JUMP = re.compile(
    rf"(?:{_USER}@)?(?:[A-Za-z0-9_][A-Za-z0-9._-]{{0,252}}|\[[0-9A-Fa-f:.]{{2,45}}\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_PATH = re.compile(r"(?!-)[A-Za-z0-9._/~@+=,-]{1,1000}")
_ABSOLUTE = re.compile(r"/(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9._/@+=,-]{1,1000}")
_PYTHON = re.compile(r"(?!-)(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/+-]{1,400}")
_LOCAL = re.compile(r"local:/(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9._/+-]{1,1000}")
RESERVED = ("all", "ungrouped")


def host_name_problem(name: str) -> str:
    """Why ``name`` cannot be a host's name; '' when it can."""
    if name in RESERVED:
        return f"{name!r} has a meaning of its own and cannot name a host"
    if _NAME.fullmatch(name):
        return ""
    what = "letters, digits and . _ : -, not beginning with . or - or ending with :"
    if not name.isascii():
        odd = next(sign for sign in name if not sign.isascii())
        return f"{quoted(name)} is no host name: U+{ord(odd):04X} is not ASCII; {what}"
    return f"{quoted(name)} is no host name: {what}"


def group_name_problem(name: str) -> str:
    """Why ``name`` cannot be a group's name; '' when it can."""
    if name in RESERVED:
        return f"{name!r} has a meaning of its own and cannot name a group"
    return "" if _GROUP.fullmatch(name) else f"{quoted(name)} is no group name: letters, digits and . _ -"


def near(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or ''."""
    # Of many names only those that begin alike are compared, one by one it would take seconds.
    names = [name for name in known if name[:1].lower() == word[:1].lower()]
    names = names if len(names) < 2000 else [name for name in names if len(name) == len(word)][:2000]
    found = difflib.get_close_matches(word[:80], names, n=1, cutoff=0.7)
    return f"; did you mean {found[0]!r}?" if found else ""


def _matched(value: Value, pattern: re.Pattern[str], what: str, *, shown: bool = True) -> str | None:
    text = value.as_type(str)
    if text is None:
        return None
    if not pattern.fullmatch(text):
        value.problem(f"{quoted(text)} is not {what}" if shown else f"is not {what}")
        return None
    return text


def _address(value: Value) -> str | None:
    text = value.as_type(str)
    if text is None or _LOCAL.fullmatch(text):
        return text
    if not re.fullmatch(_NAME, re.sub(r"\[[0-9,-]*\]", "0", text)) or text in RESERVED:
        value.problem("is no host name or IP address")
        return None
    return text


def _port(value: Value) -> int | None:
    number = value.as_type(int)
    if number is not None and not 1 <= number <= 65535:
        value.problem(f"must be between 1 and 65535, is {number}")
        return None
    return number


def _jump(value: Value) -> str | None:
    text = _matched(value, _JUMP, "[user@]host[:port]", shown=False)
    port = _JUMP.fullmatch(text) if text else None
    if port is not None and port["port"] and not 1 <= int(port["port"]) <= 65535:
        value.problem("has a port that is not between 1 and 65535")
        return None
    return text


def _file(value: Value) -> str | None:
    """A path on this machine; a relative one is beside the inventory."""
    text = _matched(value, _PATH, "the path of a file on this machine", shown=False)
    if text is None:
        return None
    path = os.path.expanduser(text)
    return os.path.normpath(path if os.path.isabs(path) else value.reader.path.absolute().parent / path)


def _timeout(value: Value) -> float | None:
    seconds = value.as_type(float)
    if seconds is not None and not 1 <= seconds <= MAX_TIMEOUT:
        value.problem(f"must be between 1 and {MAX_TIMEOUT:.0f} seconds, is {seconds:g}")
        return None
    return seconds


def _name(value: Value) -> str | None:
    text = value.as_type(str)
    if text is not None and (why := host_name_problem(text)):
        value.problem(why)
        return None
    return text


def _label(value: Value) -> str | bool | None:
    if isinstance(value.raw, bool):
        return value.raw
    return _matched(value, _GROUP, "true, false or a label of letters, digits and . _ -")


def _plain(pattern: re.Pattern[str], what: str, *, shown: bool = True) -> Callable[[Value], str | None]:
    return lambda value: _matched(value, pattern, what, shown=shown)


_READERS: Mapping[str, Callable[[Value], Any]] = {
    "address": _address,
    "port": _port,
    "user": _plain(re.compile(_USER), "a user's name", shown=False),
    "key": _file,
    "jump": _jump,
    "known_hosts": _file,
    "sudo": lambda value: value.as_type(bool),
    "python": _plain(_PYTHON, "a name or path of an interpreter on the host"),
    "cann": _plain(_ABSOLUTE, "an absolute path on the host"),
    "opp": _plain(_ABSOLUTE, "an absolute path on the host"),
    "vendor": _plain(re.compile(VENDOR_PATTERN), "a vendor's name"),
    "relay": _name,
    "shared_opp": _label,
    "timeout": _timeout,
}
KEYS = tuple(_READERS)


def read_setting(key: str, value: Value) -> Any:
    """The value of one of KEYS; None (and a problem at its line) when it is wrong."""
    return _READERS[key](value)


def read_settings(members: Mapping[str, Value], known: Iterable[str] = KEYS) -> dict[str, Value]:
    """The right ones of ``members``, each with its line; the others become problems."""
    found = {}
    known = list(known)
    for key, value in members.items():
        if key not in known:
            value.reader.add(value.key_line, value.where, unknown_key(key, known))
            continue
        read = read_setting(key, value)
        if read is not None:
            found[key] = Value(value.reader, read, value.line, value.where, value.key_line)
    return found


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say of a key that is none of ``known``."""
    if SECRET.search(key):
        return NO_SECRETS
    known = list(known)
    return f"unknown key{near(key, known)}" + ("" if near(key, known) else f"; known here: {', '.join(known)}")
