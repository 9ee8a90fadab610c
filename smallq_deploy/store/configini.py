"""config.ini of the vendors directory: which vendors CANN loads, and in which order.

The one form that every reader accepts (cann.md 6.2): the first line is ``load_priority=a,b``, without spaces, comments
or a byte-order mark, and every user can read the file. Reading is as lenient as the aclnn loader's
(cann.md 6.1), writing gives that one form; other lines of the file follow unchanged.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from smallq_deploy.base.errors import ConflictError, access_error
from smallq_deploy.base.fsops import fsync_dir, read_plain, write_atomic
from smallq_deploy.store.journal import ConfigChange
from smallq_deploy.store.paths import Store

_KEY = "load_priority="


@dataclass(frozen=True)
class ConfigIni:
    """The file as found: ``text`` None when there is none. ``names`` are trimmed, in order, each once."""

    text: str | None = None
    mode: int = 0o644
    names: tuple[str, ...] = ()
    rest: tuple[str, ...] = field(default=(), repr=False)
    problems: tuple[str, ...] = ()  # why some reader of CANN would not see these names

    @property
    def clean(self) -> bool:
        """True when every reader of CANN sees the same vendors."""
        return not self.problems


def parse(text: str, mode: int = 0o644) -> ConfigIni:
    """Understand a config.ini text; never raises."""
    problems: list[str] = []
    if text.startswith("\ufeff"):
        problems.append("starts with a byte-order mark")
    lines = text.removeprefix("\ufeff").splitlines()
    found = next((i for i, line in enumerate(lines) if not line.startswith("#") and "priority" in line), None)
    if found is None:
        if text.strip():
            problems.append("has no load_priority line")
        return ConfigIni(text, mode, (), tuple(line for line in lines if line.strip()), tuple(problems))
    if found > 0:
        problems.append("load_priority is not in the first line")
    key, equals, value = lines[found].partition("=")
    if not equals or key != "load_priority":
        problems.append("the key is not exactly 'load_priority='")
    raw = value.split(",") if value else []
    names: list[str] = []
    for item in raw:
        if item != item.strip():
            problems.append(f"a space around {item.strip()!r}")
        elif not item:
            problems.append("an empty name")
        if item.strip() and item.strip() not in names:
            names.append(item.strip())
    if mode & 0o444 != 0o444:
        problems.append(f"not readable by every user (mode {mode:04o})")
    rest = tuple(line for i, line in enumerate(lines) if i != found and line.strip())
    return ConfigIni(text, mode, tuple(names), rest, tuple(dict.fromkeys(problems)))


def read_config(store: Store) -> ConfigIni:
    """The present config.ini. Raises ConflictError CONFIG_NOT_A_FILE, and the typed form of an OSError."""
    path = store.config_ini
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode):
            raise ConflictError(
                "CONFIG_NOT_A_FILE",
                f"{path} is not a regular file",
                hint="replace it by a regular file; smallq-deploy does not follow links there",
            )
        # Unknown bytes survive a rewrite unchanged.
        text = read_plain(path).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ConfigIni()
    except OSError as error:
        raise access_error(error, f"read {path}") from error
    return parse(text, stat.S_IMODE(info.st_mode))


def with_vendor(config: ConfigIni, vendor: str, *, listed: bool, first: bool = False) -> str | None:
    """The text with ``vendor`` present or not; None means the file goes away.

    A vendor that is already named keeps its place unless ``first``; a new one is appended. A text that would say the
    same to every reader is given back unchanged.
    """
    names = [name for name in config.names if listed or name != vendor]
    if listed and vendor not in names:
        names.append(vendor)
    if listed and first:
        names = [vendor, *(name for name in names if name != vendor)]
    if tuple(names) == config.names and (config.clean or not listed):
        return config.text
    if not names and not config.rest:
        return None  # an empty load_priority= would make CANN's own installers skip registration (cann.md 13.14)
    lines = ([_KEY + ",".join(names)] if names else []) + list(config.rest)
    return "\n".join(lines) + "\n"


def write_config(store: Store, text: str | None, mode: int) -> None:
    """Make config.ini this text (None: remove it), durably; readable by every user."""
    path = store.config_ini
    if text is None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        fsync_dir(path.parent)
        return
    owner = path.lstat() if path.exists() else None
    write_atomic(path, text.encode("utf-8", "surrogateescape"), mode=mode)
    if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        except PermissionError:
            pass  # every user can read it, which is what matters


def apply_change(store: Store, change: ConfigChange) -> None:
    """Go from ``before`` to ``after``."""
    if change.after != change.before or (change.after is not None and change.mode & 0o444 != 0o444):
        write_config(store, change.after, change.mode | 0o644)


def revert_change(store: Store, change: ConfigChange, vendor: str) -> None:
    """Go back to ``before``; what others wrote meanwhile stays, only our name's presence and place return."""
    present = read_config(store)
    if present.text == change.before and (change.before is None or present.mode == change.mode):
        return
    if present.text in (change.after, change.before):
        write_config(store, change.before, change.mode)
        return
    old = parse(change.before or "")
    names = [name for name in present.names if name != vendor]
    if vendor in old.names:
        followers = old.names[old.names.index(vendor) + 1 :]
        place = next((names.index(name) for name in followers if name in names), len(names))
        names.insert(place, vendor)
    if tuple(names) == present.names:
        return
    lines = ([_KEY + ",".join(names)] if names else []) + list(present.rest)
    write_config(store, "\n".join(lines) + "\n" if lines else None, present.mode | 0o644)
