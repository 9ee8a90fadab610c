"""``gc`` and ``pin``: delete generations that nobody needs, and say for each why it stays or goes."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass, replace
from typing import Any

from smallq_deploy.base.errors import ConflictError, InstallError, UsageError, access_error, raise_problems
from smallq_deploy.base.events import Events
from smallq_deploy.base.filesystem import shared_kind
from smallq_deploy.base.fsops import remove_tree, tree_size
from smallq_deploy.base.lock import owner_record
from smallq_deploy.operate.inuse import users_of
from smallq_deploy.operate.preflight import unwritable
from smallq_deploy.store.generations import Generation, list_generations, load_generation, now, read_state
from smallq_deploy.store.history import append_history, who
from smallq_deploy.store.journal import new_txid
from smallq_deploy.store.live import check_place
from smallq_deploy.store.paths import ABSENT, Store
from smallq_deploy.store.pins import Pin, new_pin, read_pins, write_pins
from smallq_deploy.store.recovery import RecoveryReport, refuse_open, session
from smallq_deploy.store.switch import move

KEEP = 3


@dataclass(frozen=True)
class Item:
    """One generation: bytes on disk, whether it goes, and why or why not."""

    number: int
    size: int
    deleted: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class GcReport:
    """``decision``: done, planned (dry run) or nothing. Sizes in bytes; ``size`` is what remains."""

    decision: str
    items: tuple[Item, ...] = ()
    warnings: tuple[str, ...] = ()
    recovered: RecoveryReport | None = None

    @property
    def freed(self) -> int:
        return sum(item.size for item in self.items if item.deleted)

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items if not item.deleted)

    def to_dict(self) -> dict[str, Any]:
        return {
            "decision": self.decision,
            "generations": [item.to_dict() for item in self.items],
            "freed": self.freed,
            "size": self.size,
            "recovered": self.recovered.to_dict() if self.recovered else None,
        }


def choose(
    generations: tuple[Generation, ...],
    sizes: dict[int, int],
    protected: dict[int, str],
    *,
    keep: int = KEEP,
    max_size: int | None = None,
) -> tuple[Item, ...]:
    """Which generations go. ``protected``: number -> why it must stay, whatever is asked.

    Failed ones go first, then all but the newest ``keep`` that can be rolled back to, then, while the rest is larger
    than ``max_size`` bytes, the oldest. Sizes in bytes. Pure.
    """
    usable = [item.number for item in generations if not item.failed]
    newest = set(usable[-keep:]) if keep else set()
    items = []
    for generation in generations:
        number = generation.number
        if number in protected:
            gone, reason = False, protected[number]
        elif generation.failed:
            gone, reason = True, f"it never worked ({generation.failed})"
        elif number in newest:
            gone, reason = False, f"one of the newest {keep}"
        else:
            gone, reason = True, f"older than the newest {keep}"
        items.append(Item(number, sizes[number], gone, reason))
    if max_size is not None:
        for place, item in enumerate(items):
            if sum(other.size for other in items if not other.deleted) <= max_size:
                break
            if not item.deleted and item.number not in protected:
                items[place] = replace(item, deleted=True, reason="the oldest, and --max-size is exceeded")
    return tuple(items)


def collect(
    store: Store,
    *,
    keep: int = KEEP,
    max_size: int | None = None,
    adopted: bool = False,
    other_hosts: bool = False,
    dry_run: bool = False,
    wait_seconds: float = 0.0,
    events: Events | None = None,
) -> GcReport:
    """Delete generations that nobody needs, see :func:`choose`.

    Never the live one, one that a running process has mapped, the last proven one, a pinned one, or the one a rollback
    goes to. What was found before the first install stays too, unless ``adopted``: nothing could bring it back.
    On a shared file system another host may have a generation mapped, which cannot be seen: refused (ConflictError
    OTHER_HOSTS) unless ``other_hosts``. Raises ConflictError LOCK_BUSY, AccessError, InstallError STORE_DAMAGED.
    """
    events = events or Events()
    check_place(store)
    if not store.exists:
        return GcReport("nothing")
    raise_problems(list(unwritable(store)))
    if dry_run:
        refuse_open(store)
        return _report(store, "planned", keep=keep, max_size=max_size, adopted=adopted)
    with session(store, wait_seconds=wait_seconds, events=events) as recovered:
        report = _report(store, "done", keep=keep, max_size=max_size, adopted=adopted)
        gone = [item for item in report.items if item.deleted]
        if gone and not other_hosts and (kind := shared_kind(store.generations)):
            raise ConflictError(
                "OTHER_HOSTS",
                f"{store.generations} is on a shared file system ({kind}): processes of other hosts may have a "
                "generation loaded, and would crash",
                hint="restart them with the live one first, then say --other-hosts",
                details={"generations": [item.number for item in gone]},
            )
        try:
            for item in gone:
                with events.step(f"delete generation {item.number}"):
                    _delete(store, item.number)
            if gone:
                append_history(store, _line(store, gone))
        except OSError as error:
            raise access_error(error, f"remove generations of {store.generations}") from error
    return replace(report, decision="done" if gone else "nothing", recovered=recovered)


def _report(store: Store, decision: str, *, keep: int, max_size: int | None, adopted: bool) -> GcReport:
    generations = list_generations(store)
    sizes = {item.number: _size(store, item.number) for item in generations}
    protected = _protected(store, generations, adopted)
    items = choose(generations, sizes, protected, keep=keep, max_size=max_size)
    report = GcReport(decision, items)
    if max_size is not None and report.size > max_size:
        text = f"{report.size:,} bytes remain, more than --max-size {max_size:,}: what is left must be kept"
        report = replace(report, warnings=(text,))
    return report


def _size(store: Store, number: int) -> int:
    try:
        return tree_size(store.generation_dir(number))
    except OSError as error:
        raise access_error(error, f"look at generation {number}") from error


def _protected(store: Store, generations: tuple[Generation, ...], adopted: bool) -> dict[int, str]:
    """Number -> why it must stay; the weightiest reason wins."""
    state = read_state(store).of(store.vendor)
    found: dict[int, str] = {}
    if not adopted:
        found.update(
            {item.number: "found here, nothing could bring it back" for item in generations if item.origin == "adopted"}
        )
    proven = [item.number for item in generations if item.proven and not item.failed]
    if proven:
        found[proven[-1]] = "the last that a smoke test proved"
    for number, pin in read_pins(store).items():
        found[number] = "pinned" + (f": {pin.reason}" if pin.reason else "")
    for process in users_of(store).processes:
        if process.generation:
            found[process.generation] = f"in use by {process}"
    if state.previous:
        found[state.previous] = "`rollback` goes there"
    if state.current:
        found[state.current] = "live"
    return found


def _delete(store: Store, number: int) -> None:
    """Out of the store by one rename: a half-removed generation would look like a damaged store."""
    aside = store.root / "staging" / f"deleted-{number}"
    try:
        move(store.generation_dir(number), aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise InstallError(
            "CANNOT_DELETE",
            f"generation {number} lies in a lower layer of this container's file system: deleting it frees nothing",
            hint="run gc where the image is built",
        ) from error
    remove_tree(aside)


def _line(store: Store, gone: list[Item]) -> dict[str, Any]:
    live = read_state(store).of(store.vendor).current or ABSENT
    numbers = [item.number for item in gone]
    return {
        "txid": new_txid(),
        "time": now(),
        "vendor": store.vendor,
        "action": "gc",
        "result": "ok",
        "from": live,
        "to": live,
        "live": live,
        "adopted": None,
        "method": "",
        "smoke": None,
        "reason": f"deleted {'generation' if len(numbers) == 1 else 'generations'} {', '.join(map(str, numbers))}",
        "deleted": numbers,
        **who(owner_record()),
    }


@dataclass(frozen=True)
class PinReport:
    """``pinned`` is what is true now; ``changed`` False: it was so before."""

    number: int
    pinned: bool
    changed: bool
    pin: Pin | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "generation": self.number,
            "pinned": self.pinned,
            "changed": self.changed,
            "reason": self.pin.reason if self.pin else "",
            "since": self.pin.since if self.pin else "",
        }


def pin(
    store: Store,
    number: int,
    *,
    reason: str = "",
    remove: bool = False,
    dry_run: bool = False,
    wait_seconds: float = 0.0,
    events: Events | None = None,
) -> PinReport:
    """Keep a generation from ``gc``, or with ``remove`` no longer.

    Raises UsageError NO_SUCH_GENERATION, FAILED_GENERATION, ConflictError LOCK_BUSY.
    """
    check_place(store)
    if not store.exists:
        raise UsageError(
            "NO_SUCH_GENERATION", "nothing was ever installed here", hint="`smallq-deploy install` is first"
        )
    raise_problems(list(unwritable(store)))
    if dry_run:
        refuse_open(store)
        return _pin(store, number, reason, remove)[1]
    with session(store, wait_seconds=wait_seconds, events=events):
        pins, report = _pin(store, number, reason, remove)
        if report.changed:
            try:
                write_pins(store, pins)
            except OSError as error:
                raise access_error(error, f"write {store.pins}") from error
    return report


def _pin(store: Store, number: int, reason: str, remove: bool) -> tuple[dict[int, Pin], PinReport]:
    pins = read_pins(store)
    if remove and number in pins:
        old = pins.pop(number)
        return pins, PinReport(number, False, True, old)
    generation = load_generation(store, number)
    if generation.vendor != store.vendor:
        raise UsageError(
            "NO_SUCH_GENERATION",
            f"generation {number} belongs to vendor {generation.vendor}, not {store.vendor}",
            hint=f"say --vendor {generation.vendor}",
        )
    if remove:
        return pins, PinReport(number, False, False)
    if generation.failed:
        raise UsageError(
            "FAILED_GENERATION",
            f"generation {number} never worked ({generation.failed})",
            hint="it can be looked at until gc or the next install removes it; pin one that works",
        )
    if number in pins and pins[number].reason == reason:
        return pins, PinReport(number, True, False, pins[number])
    pins[number] = new_pin(reason)
    return pins, PinReport(number, True, True, pins[number])
