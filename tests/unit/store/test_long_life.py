"""A long life in short: random commands, each of which may die anywhere, against a model of what must be live."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from smallq_deploy.store import transaction
from smallq_deploy.store.generations import list_generations, read_state
from smallq_deploy.store.live import observe_live
from smallq_deploy.store.paths import ABSENT, Staging, Store
from smallq_deploy.store.transaction import Change, Draft, Proof, change_live, open_transaction, session
from tests.support.world import settled_problems

METHODS = st.sampled_from(["", "", "renames", "copy"])
DEATHS = st.one_of(st.none(), st.integers(0, 90), st.integers(10, 45))


class Died(BaseException):
    """The process ended here: nothing more of it runs."""


@contextlib.contextmanager
def dying(after: int | None) -> Iterator[None]:
    """Raise Died at the ``after``-th call that changes directories or makes something durable, and clean nothing up."""
    if after is None:
        yield
        return
    left = after

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Died
            return function(*arguments, **options)

        return call

    with contextlib.ExitStack() as stack:
        for name in ("rename", "mkdir", "unlink", "rmdir", "fsync"):
            stack.enter_context(mock.patch.object(os, name, wrap(getattr(os, name))))
        stack.enter_context(mock.patch.object(transaction._Transaction, "_give_up", lambda self, error: None))
        yield


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.store = Store(self.root)
        self.store.vendors.mkdir()
        self.live: str | None = None  # the text in the live tree
        self.trees: dict[int, str | None] = {ABSENT: None}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def text(self) -> str | None:
        path = self.store.live / "folder" / "text"
        return path.read_text() if path.exists() else None

    def change(self, change: Change, wanted: str | None, method: str, death: int | None) -> None:
        """Run it and recover: the wanted text is live then, or, if the process died, perhaps still the old one."""
        before = self.live
        died = False
        try:
            with dying(death), session(self.store):
                change_live(self.store, change, method=method)
        except Died:
            died = True
        with session(self.store):
            pass
        self.live = self.text()
        assert self.live in ((before, wanted) if died else (wanted,))
        for generation in list_generations(self.store):
            self.trees.setdefault(generation.number, wanted if generation.origin == "installed" else before)

    @rule(text=st.sampled_from("abc"), passes=st.booleans(), method=METHODS, death=DEATHS)
    def install(self, text: str, passes: bool, method: str, death: int | None) -> None:
        def stage(area: Staging) -> Draft:
            (area.tree / "folder").mkdir(parents=True)
            (area.tree / "folder" / "text").write_text(text)
            area.package.write_text("package")
            return Draft()

        proof = Proof(passes, "pass" if passes else "fail", reason="" if passes else "no")
        before = self.live
        change = Change("install", stage=stage, prove=lambda: proof)
        self.change(change, text if passes else before, method, death)
        for generation in list_generations(self.store):
            if generation.failed:
                self.trees[generation.number] = text

    @precondition(lambda self: any(self.targets()))
    @rule(data=st.data(), method=METHODS, death=DEATHS)
    def rollback(self, data: st.DataObject, method: str, death: int | None) -> None:
        target = data.draw(st.sampled_from(self.targets()))
        listed = bool(target) and next(g.listed for g in list_generations(self.store) if g.number == target)
        self.change(Change("rollback", target=target, listed=listed), self.trees[target], method, death)

    def targets(self) -> list[int]:
        """Generations that a rollback could go to, by the model."""
        current = read_state(self.store).of("customize").current or ABSENT
        found = [
            generation.number
            for generation in list_generations(self.store)
            if not generation.failed and self.store.tree_dir(generation.number).is_dir()
        ]
        return [number for number in [ABSENT, *found] if number != current]

    @rule(method=METHODS, death=DEATHS)
    def uninstall(self, method: str, death: int | None) -> None:
        self.change(Change("uninstall", listed=False), None, method, death)

    @precondition(lambda self: self.live is not None)
    @rule(text=st.sampled_from("xyz"))
    def somebody_edits(self, text: str) -> None:
        (self.store.live / "folder" / "text").write_text(text)
        self.live = text

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.text() == self.live
        assert not self.store.exists or open_transaction(self.store) is None
        kind = observe_live(self.store).kind
        if kind == "changed":
            return  # the state names what it was before somebody edited it
        problems = settled_problems(self.store, (self.digest(),), {})
        # Proofs are told by the tests, so a history line without a pass is none of this test's business.
        assert [text for text in problems if not text.startswith("I7: an install")] == []

    def digest(self) -> str:
        from tests.support.world import live_digest

        return live_digest(self.store)


Life.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
TestLongLife = Life.TestCase
