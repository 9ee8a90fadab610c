"""The controller: performs the steps that waves.py decides, over an engine, and writes down what happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from smallq_deploy.fleet.hosts import Host
from smallq_deploy.fleet.rollout.action import Action, Verdict
from smallq_deploy.fleet.rollout.control import POLL, requested
from smallq_deploy.fleet.rollout.hooks import Hooks
from smallq_deploy.fleet.rollout.ledger import Ledger
from smallq_deploy.fleet.rollout.outcome import Report, make_report
from smallq_deploy.fleet.rollout.turns import Turns
from smallq_deploy.fleet.rollout.waves import (
    Asked,
    Closed,
    Event,
    Finish,
    Pause,
    RolloutState,
    Run,
    Soak,
    Soaked,
    Step,
    fold,
    next_step,
)
from smallq_deploy.fleet.transport import Transport

__all__ = ["Action", "Report", "Rollout", "Verdict"]


class Rollout:
    """One run over ``hosts``; a ledger that has events already makes it go on where those end.

    ``batch``: hosts that are changed at once, 0 for a whole wave (with hooks 16, for these are out of service
    together). ``watch`` sees every event after it was written, and the state with it; ``announce`` each step before
    it is performed (a pause once). ``stop``: nothing is begun any more, hosts that run go on to their end.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        action: Action,
        transport: Transport,
        ledger: Ledger,
        *,
        hooks: Hooks | None = None,
        batch: int = 0,
        watch: Callable[[Event, RolloutState], None] = lambda event, state: None,
        announce: Callable[[Step], None] = lambda step: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._action = action
        self._ledger = ledger
        self._hooks = hooks or Hooks()
        self._watch = watch
        self._announce = announce
        self._stop = stop or threading.Event()
        self._halt = threading.Event()
        self.state = fold(ledger.header.policy, ledger.header.members, ledger.events)
        self._turns = Turns(
            hosts, action, transport, self._hooks, batch, self.state, self._emit, ledger.sync, self._halt
        )
        # Whoever resumes a run does not want the pause that its dead controller was in.
        word = requested(ledger.path)
        self._heard = word if word != "abort" else ""

    def run(self) -> Report:
        """Perform steps to the end, or until ``stop``. Raises what the ledger raises (a full disk), after the hosts
        that run have ended; a host's failure is in the report, never an exception."""
        start = time.monotonic()
        result, reason = "interrupted", "stopped here before its end"
        announced: Step | None = None
        with _Listener(self._listen):
            if self.state.paused:
                self._emit(Asked("resume"))
            while True:
                self._halt.clear()
                self._hear()
                step = next_step(self.state)
                if isinstance(step, Finish):
                    result, reason = step.result, step.reason
                    break
                if self._stop.is_set():
                    break
                if step != announced:
                    self._announce(step)
                announced = step
                self._perform(step)
            if result != "interrupted" and self.state.closed is None:
                self._emit(Closed(result, reason))
            self._ledger.sync()
        seconds = time.monotonic() - start
        drains = bool(self._hooks.before or self._hooks.remote_before)
        run = self._ledger.header.run
        return make_report(self.state, run, self._action.name, result, reason, seconds, drains=drains)

    def _perform(self, step: Run | Soak | Pause) -> None:
        if isinstance(step, Run):
            self._turns.perform(step)
        elif isinstance(step, Soak):
            until = time.monotonic() + step.seconds
            while (left := until - time.monotonic()) > 0 and not self.state.halted:
                if self._stop.wait(min(POLL, left)):
                    return
                self._hear()
            if not self.state.halted:
                self._emit(Soaked(step.wave))
        else:
            self._stop.wait(POLL)

    def _emit(self, event: Event) -> None:
        self._ledger.append(event)
        self.state.apply(event)
        self._watch(event, self.state)

    def _hear(self) -> None:
        """Take what others ask for, once each."""
        word = requested(self._ledger.path)
        if word and word != self._heard:
            self._heard = word
            if word != "resume" or self.state.paused:
                self._emit(Asked(word))

    def _listen(self) -> None:
        """In a thread of its own, while hosts run: nothing further is begun when somebody wants us to hold."""
        word = requested(self._ledger.path)
        if self._stop.is_set() or (word in ("pause", "abort") and word != self._heard):
            self._halt.set()


class _Listener:
    """Calls ``listen`` a few times a second as long as it is entered."""

    def __init__(self, listen: Callable[[], None]) -> None:
        self._listen = listen
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="listener", daemon=True)

    def _work(self) -> None:
        while not self._end.wait(POLL):
            self._listen()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
