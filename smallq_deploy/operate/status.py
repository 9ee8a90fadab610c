"""What is on this machine, read without the lock."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from smallq_deploy.base.filesystem import shared_kind
from smallq_deploy.operate.inuse import Users, users_of
from smallq_deploy.store.configini import read_config
from smallq_deploy.store.generations import Generation, list_generations, read_state
from smallq_deploy.store.history import read_history
from smallq_deploy.store.live import LiveState, check_place, observe_live
from smallq_deploy.store.paths import Store
from smallq_deploy.store.pins import Pin, read_pins
from smallq_deploy.store.recovery import open_transaction, steady


@dataclass(frozen=True)
class Status:
    """Everything ``status`` shows; read without the lock."""

    store: Store
    live: LiveState | None
    current: Generation | None
    previous: int | None
    generations: tuple[Generation, ...]
    listed: bool
    order: tuple[str, ...]
    warnings: tuple[str, ...]
    transaction: dict[str, Any] | None
    pins: dict[int, Pin]
    users: Users
    shared: str  # the kind of file system, where other hosts may use this opp too; else ''

    def to_dict(self) -> dict[str, Any]:
        return {
            "vendor": self.store.vendor,
            "live_path": str(self.store.live),
            "live": self.live.to_dict() if self.live else None,
            "current": self.current.to_dict() if self.current else None,
            "previous": self.previous,
            "generations": [item.to_dict() for item in self.generations],
            "listed": self.listed,
            "load_priority": list(self.order),
            "transaction": self.transaction,
            "pins": [{"generation": number, **asdict(pin)} for number, pin in sorted(self.pins.items())],
            "processes": [process.to_dict() for process in self.users.processes],
            "processes_unseen": self.users.unseen,
            "shared_file_system": self.shared,
        }


def status(store: Store) -> Status:
    """What is live, what was, and what is odd about it; never needs the lock, an open transaction is a warning.

    Raises NoToolkitError NO_OPP, ConflictError for places that are no directories, InstallError STORE_DAMAGED.
    """
    return steady(store, lambda: _status(store))


def _status(store: Store) -> Status:
    check_place(store)
    warnings = []
    opened = open_transaction(store)
    if opened is not None:
        doing = "is running" if opened.running else "was interrupted; `smallq-deploy recover` closes it"
        warnings.append(f"a {opened.action} begun {opened.started} (phase '{opened.phase}') {doing}")
    live = observe_live(store) if opened is None else None
    state = read_state(store).of(store.vendor)
    generations = list_generations(store)
    current = next((item for item in generations if item.number == state.current), None)
    config = read_config(store)
    listed = store.vendor in config.names
    if live is not None and live.kind == "changed":
        warnings.append(
            f"{store.live} was changed since it was installed ({len(live.differences)} differences); "
            "`smallq-deploy verify` lists them"
        )
    if live is not None and live.kind == "removed":
        warnings.append(f"{store.live} is gone, though generation {state.current} should be live")
    if live is not None and live.exists and not listed:
        warnings.append(f"{store.config_ini} does not name {store.vendor}: CANN does not look into {store.live}")
    if current is not None and not current.proven and current.origin != "adopted":
        warnings.append(f"generation {current.number} is unproven: no smoke test passed for it")
    return Status(
        store,
        live,
        current,
        state.previous,
        generations,
        listed,
        config.names,
        tuple(warnings),
        opened.to_dict() if opened else None,
        read_pins(store),
        users_of(store) if live is None or live.exists or generations else Users(),
        shared_kind(store.vendors),
    )


def history(store: Store) -> tuple[dict[str, Any], ...]:
    """The history of this vendor, oldest first."""
    return read_history(store, vendor=store.vendor)
