"""Take secrets out of text and JSON before they leave the machine. Rather too much is replaced than too little.

What counts as a secret: values whose name says so (token, password, key ...), credentials in URLs and headers, tokens
of known shape, private keys, and wherever they stand the values of environment variables whose name says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MARK = "<redacted>"
# These anywhere in a name, and those only as words of it: "bypass" and "author" are no secrets, DB_PASS and AUTH are.
_ANYWHERE = r"password|passwd|passphrase|secret|token(?!i)|credential|api ?key|access ?key|private ?key"
_WORDS = r"pass|pwd|auth|authorization|bearer|cookies?|session id|session key|signing key|encryption key"
_SECRET_NAME = re.compile(rf"{_ANYWHERE}|(?:^| )(?:{_WORDS})(?= |\d|$)")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_SECRET = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK"})  # directories of a shell, the path of a socket
_MIN_VALUE = 6  # characters; shorter values of variables would match everywhere

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # The end of a file may begin in the middle of a key.
    (re.compile(r"\A(?:(?!-----BEGIN ).)*-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL), MARK),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MARK),
    (re.compile(r"(?i)\b((?:proxy-)?authorization\s*[:=]\s*)[^\r\n]+"), rf"\1{MARK}"),
    (re.compile(r"(?i)\b((?:set-)?cookie\s*:\s*)[^\r\n]+"), rf"\1{MARK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {MARK}"),
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@\"']+@"), rf"\1{MARK}@"),
    (
        re.compile(r"(?i)([?&;](?:[\w.-]*(?:token|key|secret|sig|signature|password|credential)[\w.-]*)=)[^&\s\"'#]+"),
        rf"\1{MARK}",
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), MARK),
    (
        re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
            r"|hf_[A-Za-z0-9]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{16,}|pypi-[A-Za-z0-9_-]{16,}"
            r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{30,})"
        ),
        MARK,
    ),
    # --password VALUE and --token=VALUE of command lines.
    (
        re.compile(
            r"(?i)((?<![\w-])--[\w-]*(?:password|passwd|passphrase|secret|token|credential|api-?key|access-?key)"
            r"[\w-]*(?:=|\s+))(?!-)(\"[^\"]*\"|'[^']*'|\S+)"
        ),
        rf"\1{MARK}",
    ),
)
# name = value, name: value and "name": "value" in any text. The name is judged by is_secret_name.
_PAIR = re.compile(
    r"""(?P<head>(?P<quote>["']?)(?P<name>[A-Za-z_][\w.-]*)(?P=quote)[ \t]*(?::(?!//)|=)[ \t]*)"""
    r"""(?P<value>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[^\s"'`,;&]+)"""
)
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_IPV6 = re.compile(r"(?i)(?<![\w:])(?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{1,4}(?![\w:])|(?<![\w:])fe80::[0-9a-f:]+")
_MAC = re.compile(r"(?i)(?<![\w:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![\w:])")


def is_secret_name(name: str) -> bool:
    """True for names whose values are kept back: GITHUB_TOKEN, db-password, apiKey; not for PWD, passed or author."""
    return name not in _NOT_SECRET and bool(_SECRET_NAME.search(re.sub(r"[_.-]+", " ", _CAMEL.sub(" ", name)).lower()))


@dataclass
class Redactor:
    """Replaces secrets and counts them. ``known`` are values to replace wherever they stand; ``private`` maps names of
    this machine (host, user, home) to what stands for them, in an anonymous bundle."""

    known: tuple[str, ...] = ()
    private: Mapping[str, str] = field(default_factory=dict)
    count: int = 0

    @staticmethod
    def of_environment(environs: Iterable[Mapping[str, str]], private: Mapping[str, str] | None = None) -> Redactor:
        """Knows the values of every variable of these environments whose name says that it is a secret."""
        found = {
            value
            for environ in environs
            for name, value in environ.items()
            if is_secret_name(name) and len(value) >= _MIN_VALUE
        }
        return Redactor(tuple(sorted(found, key=len, reverse=True)), dict(private or {}))

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        for value in self.known:
            self.count += text.count(value)
            text = text.replace(value, MARK)
        for pattern, replacement in _PATTERNS:
            text, number = pattern.subn(replacement, text)
            self.count += number
        text = _PAIR.sub(self._pair, text)
        return self._anonymous(text) if self.private else text

    def _pair(self, found: re.Match[str]) -> str:
        value = found["value"]
        if not is_secret_name(found["name"]) or MARK in value or value.strip("\"'") in ("", "null", "None"):
            return found[0]
        self.count += 1
        quote = value[0] if value[0] in "\"'" else ""
        return f"{found['head']}{quote}{MARK}{quote}"

    def _anonymous(self, text: str) -> str:
        for name, stand_in in sorted(self.private.items(), key=lambda item: len(item[0]), reverse=True):
            text, number = re.subn(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", stand_in, text)
            self.count += number
        for pattern, stand_in in ((_MAC, "<mac>"), (_IP, "<ip>"), (_IPV6, "<ip>")):
            text, number = pattern.subn(stand_in, text)
            self.count += number
        return text

    def value(self, value: Any) -> Any:
        """JSON data without secrets: whole values under names that say so, and text everywhere."""
        if isinstance(value, Mapping):
            result = {}
            for key, item in value.items():
                if is_secret_name(str(key)) and item not in (None, "", [], {}) and not isinstance(item, bool):
                    self.count += 1
                    result[self.text(str(key))] = MARK
                else:
                    result[self.text(str(key))] = self.value(item)
            return result
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def document(self, text: str) -> str:
        """A JSON document, or one JSON object a line, without secrets; anything else as text."""
        try:
            return json.dumps(self.value(json.loads(text)), indent=2, ensure_ascii=False) + "\n"
        except (ValueError, RecursionError):
            pass
        lines = []
        for line in text.splitlines():
            try:
                lines.append(json.dumps(self.value(json.loads(line)), ensure_ascii=False))
            except (ValueError, RecursionError):
                lines.append(self.text(line))
        return "\n".join(lines) + "\n"
