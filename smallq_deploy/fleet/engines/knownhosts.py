"""known_hosts files of large fleets: read once, one host's keys found without going through all lines.

paramiko compares every line with all lines before it, so that 10,000 of them take minutes. Format: sshd(8),
"SSH_KNOWN_HOSTS FILE FORMAT". As in paramiko, names are names: patterns and certificate authorities let nobody in.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Iterable
from typing import Any


class KnownHosts:
    """Which keys hosts may show. A file that is not there, and a line that is none, are left out."""

    def __init__(self, files: Iterable[str]) -> None:
        self._plain: dict[str, list[tuple[bool, str]]] = {}
        self._hashed: list[tuple[bytes, bytes, tuple[bool, str]]] = []
        for file in files:
            try:
                with open(os.path.expanduser(file), encoding="utf-8", errors="replace") as stream:
                    for line in stream:
                        self._take(line.split())
            except OSError:
                continue

    def keys(self, name: str) -> list[str]:
        """``type base64`` of every key that ``name`` (``host`` or ``[host]:port``) may show, in the files' order."""
        found = list(self._plain.get(name.lower(), ()))
        plain = name.lower().encode()
        found += [item for salt, digest, item in self._hashed if hmac.digest(salt, plain, "sha1") == digest]
        revoked = {key for bad, key in found if bad}
        return [key for bad, key in found if not bad and key not in revoked]

    def _take(self, words: list[str]) -> None:
        revoked = bool(words) and words[0] == "@revoked"
        if revoked:
            words = words[1:]
        if len(words) < 3 or words[0][0] in "#@":
            return
        item = (revoked, f"{words[1]} {words[2]}")
        if not words[0].startswith("|1|"):
            for name in words[0].lower().split(","):
                self._plain.setdefault(name, []).append(item)
            return
        try:
            salt, digest = (base64.b64decode(part, validate=True) for part in words[0][3:].split("|"))
        except (binascii.Error, ValueError):
            return
        self._hashed.append((salt, digest, item))


def teach_pyinfra() -> None:
    """From now on pyinfra's client looks host keys up here; what it does with them stays its own."""
    import paramiko
    from pyinfra.connectors.sshuserclient import client

    class Found(paramiko.HostKeys):
        """paramiko's table, filled with one host's keys when it is asked for them."""

        def __init__(self, known: KnownHosts) -> None:
            super().__init__()
            self._known = known

        def lookup(self, hostname: str) -> Any:
            table = paramiko.HostKeys()
            for key in self._known.keys(hostname):
                entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{hostname} {key}")
                if entry is not None and entry.key is not None and not table.check(hostname, entry.key):
                    kind = entry.key.get_name()
                    if kind not in (table.lookup(hostname) or {}):
                        table.add(hostname, kind, entry.key)
            return table.lookup(hostname)

    read: dict[tuple[str, ...], KnownHosts] = {}

    def get_host_keys(files: tuple[str, ...]) -> Found:
        if files not in read:
            read[files] = KnownHosts(files)
        return Found(read[files])

    client.get_host_keys = get_host_keys
