"""What smallq-deploy should do, said once more in a few lines: the model that random lives are compared with.

A life is a list of operations on one opp. The model knows digests and numbers, no files; :class:`Model` answers each
operation with how it must end and changes itself accordingly. ``seen`` of both worlds must then be equal.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

from smallq_deploy.store.configini import read_config
from smallq_deploy.store.generations import list_generations, read_state
from smallq_deploy.store.history import read_history
from smallq_deploy.store.paths import Store
from tests.support.world import NOTHING, live_digest

PACKAGES = ("1", "2", "3")
OURS, OTHER = "customize", "other"


@dataclass(frozen=True)
class Op:
    """One operation: ``name`` and its arguments; ``die`` is the changing call at which its process ends, 0: never."""

    name: str
    package: str = ""
    number: int | None = None
    smoke: str = "pass"  # pass | fail | inconclusive | none (--no-smoke)
    flag: bool = False  # reinstall, purge, adopted, unpin
    die: int = 0

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in vars(self).items() if value not in ("", None, False, 0))


@dataclass
class Gen:
    digest: str
    package: str = ""  # '' : adopted
    proven: bool = False
    failed: bool = False
    listed: bool = True
    tree: bool = True  # the store or the live directory has its files


@dataclass
class Model:
    """``digests``: package content -> digest of its tree. ``live`` is a digest or NOTHING."""

    digests: dict[str, str]
    live: str
    names: list[str]
    store: bool = False
    current: int | None = None
    previous: int | None = None
    last: int = 0
    lines: int = 0
    gens: dict[int, Gen] = field(default_factory=dict)
    pins: set[int] = field(default_factory=set)

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def seen(self) -> dict[str, Any]:
        return {
            "live": self.live,
            "current": self.current,
            "previous": self.previous,
            "names": self.names,
            "generations": {number: (gen.digest, gen.failed) for number, gen in sorted(self.gens.items())},
            "last": self.last,
            "lines": self.lines,
        }

    @property
    def kind(self) -> str:
        if self.live == NOTHING:
            return "removed" if self.current else "absent"
        if not self.current:
            return "unknown"
        return "current" if self.live == self.gens[self.current].digest else "changed"

    @property
    def number(self) -> int:
        return self.current or 0 if self.kind == "current" else 0

    def apply(self, op: Op) -> str:
        """Do it; '' or the code of the error it must end with."""
        answer: str = getattr(self, "_" + op.name)(op)
        return answer

    def _install(self, op: Op) -> str:
        self.store = True
        current = self.gens.get(self.current or 0)
        unasked = op.smoke == "none"
        same = self.kind == "current" and current is not None and current.package == op.package
        if same and OURS in self.names and current is not None and (current.proven or unasked) and not op.flag:
            return ""
        old = self._adopt_number()
        new = max(self.last, old) + 1
        self.last = new
        self.lines += 1
        if op.smoke in ("fail", "inconclusive"):
            self.gens[new] = Gen(self.digests[op.package], op.package, failed=True)
            return "SMOKE_WRONG_NUMBERS" if op.smoke == "fail" else "SMOKE_INCONCLUSIVE"
        self._leave(old)
        self.gens[new] = Gen(self.digests[op.package], op.package, proven=not unasked)
        self.gens = {number: gen for number, gen in self.gens.items() if not gen.failed}
        self._become(new, old)
        return ""

    def _adopt_number(self) -> int:
        return self.last + 1 if self.kind in ("changed", "unknown") else self.number

    def _leave(self, old: int) -> None:
        """The live tree goes into the store; one that nobody knew becomes a generation."""
        if self.kind in ("changed", "removed") and self.current:
            self.gens[self.current].tree = False
        if old and old not in self.gens:
            self.gens[old] = Gen(self.live, listed=OURS in self.names)

    def _become(self, new: int, old: int) -> None:
        self.current, self.previous = new, old
        self.live = self.gens[new].digest if new else NOTHING
        listed = bool(new) and self.gens[new].listed
        if listed and OURS not in self.names:
            self.names.append(OURS)
        elif not listed and OURS in self.names:
            self.names.remove(OURS)

    def _move(self, target: int) -> str:
        adopts = self.kind in ("changed", "unknown")
        old = self._adopt_number()
        gen = self.gens.get(target)
        if adopts:
            self.last += 1
        self.lines += 1
        lost = gen is not None and (not gen.tree or (target == self.current and self.kind in ("changed", "removed")))
        if gen is not None and lost and not gen.package:
            return "GENERATION_DAMAGED"
        self._leave(old)
        if gen is not None:
            gen.tree = True
        self._become(target, old)
        return ""

    def _rollback(self, op: Op) -> str:
        if not self.store:
            return "NOTHING_TO_ROLL_BACK"
        target = self.previous if op.number is None else op.number
        if target is None:
            return "NOTHING_TO_ROLL_BACK"
        if target and target not in self.gens:
            return "NO_SUCH_GENERATION"
        if target and self.gens[target].failed:
            return "FAILED_GENERATION"
        if target == self.number and self.kind in ("current", "absent"):
            return ""
        return self._move(target)

    def _uninstall(self, op: Op) -> str:
        if not self.store:
            return "NOT_OURS" if self.live != NOTHING else ""
        if self.kind == "unknown":
            return "NOT_OURS"
        if self.kind != "absent" or OURS in self.names:
            self._move(0)
        if op.flag:
            self.gens, self.pins, self.store = {}, set(), False
            self.current = self.previous = None
            self.last = self.lines = 0
        return ""

    def _gc(self, op: Op) -> str:
        if not self.store:
            return ""
        keep = {self.current, self.previous, *self.pins}
        if not op.flag:
            keep |= {number for number, gen in self.gens.items() if not gen.package}
        proven = [number for number, gen in sorted(self.gens.items()) if gen.proven and not gen.failed]
        usable = [number for number, gen in sorted(self.gens.items()) if not gen.failed]
        keep |= {*proven[-1:], *(usable[-(op.number or 0) :] if op.number else [])}
        gone = [number for number, gen in self.gens.items() if number not in keep]
        for number in gone:
            del self.gens[number]
        self.lines += bool(gone)
        return ""

    def _pin(self, op: Op) -> str:
        number = op.number or 0
        if not self.store:
            return "NO_SUCH_GENERATION"
        if op.flag and number in self.pins:
            self.pins.remove(number)
            return ""
        if number not in self.gens:
            return "NO_SUCH_GENERATION"
        if op.flag:
            return ""
        if self.gens[number].failed:
            return "FAILED_GENERATION"
        self.pins.add(number)
        return ""

    def _recover(self, op: Op) -> str:
        return ""

    # By hand; the caller has done it to the files already.

    def _edit(self, op: Op) -> str:
        return ""

    def _remove(self, op: Op) -> str:
        self.live = NOTHING
        return ""

    def _config(self, op: Op) -> str:
        self.names = [OTHER, OURS] if op.flag else [OTHER]
        return ""


def observe(store: Store) -> dict[str, Any]:
    """The same of the files."""
    state = read_state(store) if store.exists else None
    mine = state.of(store.vendor) if state else None
    return {
        "live": live_digest(store),
        "current": mine.current if mine else None,
        "previous": mine.previous if mine else None,
        "names": list(read_config(store).names),
        "generations": {item.number: (item.manifest_digest, bool(item.failed)) for item in list_generations(store)}
        if state
        else {},
        "last": state.last_number if state else 0,
        "lines": len(read_history(store)) if state else 0,
    }


def random_op(chance: random.Random, *, command: bool = False) -> Op:
    """The next operation; ``command``: only what the real command can be asked without a device."""
    number = chance.choice((None, None, *range(9)))
    smoke = "none" if command else chance.choice(("pass", "pass", "pass", "none", "fail", "inconclusive"))
    die = chance.randint(1, 130) if chance.random() < 0.3 else 0
    choices = [
        (8, Op("install", package=chance.choice(PACKAGES), smoke=smoke, flag=chance.random() < 0.2, die=die)),
        (5, Op("rollback", number=number, smoke=smoke, die=die)),
        (3, Op("uninstall", die=die)),
        (1, Op("uninstall", flag=True)),
        (3, Op("gc", number=chance.randint(0, 3), flag=chance.random() < 0.5)),
        (2, Op("pin", number=chance.randint(1, 8), flag=chance.random() < 0.3)),
        (1, Op("recover")),
        (2, Op("edit", number=chance.randint(0, 10**9))),
        (1, Op("remove")),
        (1, Op("config", flag=chance.random() < 0.5)),
    ]
    return chance.choices([op for _, op in choices], [weight for weight, _ in choices])[0]
