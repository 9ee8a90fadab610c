"""From a command's options to the objects of the lower layers: toolkit, release, store, environment.

Modules of the lower layers are imported where they are used, so that a command pays only for what it needs.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from smallq_deploy.cli.options import Call

if TYPE_CHECKING:
    from smallq_deploy.machine.environment import Environment
    from smallq_deploy.machine.toolkit import Discovery, Toolkit
    from smallq_deploy.package.releases import Release
    from smallq_deploy.package.selection import Selection
    from smallq_deploy.store.paths import Store

DEFAULT_VENDOR = "customize"


class Session:
    """What one command works on. ``mutating`` commands refuse to guess between several toolkits."""

    def __init__(self, call: Call, *, mutating: bool) -> None:
        self.call = call
        self.mutating = mutating
        self.soc = ""  # --soc of the command, where it has one
        self.allow: dict[str, bool] = {}  # members of package.compat.Policy
        self._releases: tuple[Release, ...] = ()  # that were read while one was chosen

    @cached_property
    def discovery(self) -> Discovery:
        """The toolkits of this machine."""
        from smallq_deploy.machine.toolkit import discover

        return discover(cann=self.call.cann, opp=self.call.opp)

    @cached_property
    def toolkit(self) -> Toolkit:
        """The toolkit to work on. Raises NoToolkitError NO_TOOLKIT (3), UsageError SEVERAL_TOOLKITS (2)."""
        from smallq_deploy.machine.toolkit import require_toolkit

        toolkit = require_toolkit(self.discovery, mutating=self.mutating)
        self.call.toolkit_line = f"CANN {toolkit.version}, {toolkit.home}"
        if toolkit.remark:
            self.call.toolkit_line = f"[{toolkit.remark}] {self.call.toolkit_line}"
        for warning in (*self.discovery.warnings, *toolkit.warnings):
            self.call.events.warning(warning)
        if self.discovery.ambiguous:
            self.call.events.warning(
                f"several toolkits are here; {toolkit.home} was chosen: {self.discovery.why} (--cann names another)"
            )
        return toolkit

    def toolkit_now(self) -> Toolkit:
        """The toolkit looked up afresh: it can change while a question waits or a lock is held. Raises the same."""
        from smallq_deploy.machine.toolkit import discover, require_toolkit

        return require_toolkit(discover(cann=self.call.cann, opp=self.call.opp), mutating=self.mutating)

    @cached_property
    def environment(self) -> Environment:
        """Toolkit, devices and host. Raises as :attr:`toolkit` does."""
        from smallq_deploy.machine.environment import detect_environment

        found = detect_environment(discovery=self.discovery)
        assert self.toolkit is not None  # raises where there is none
        for warning in found.warnings:
            self.call.events.warning(warning)
        return found

    @cached_property
    def release(self) -> Release:
        """The operator release: --release, or the newest that fits this machine.

        Where none fits it is the newest of all: the plan then says what speaks against it.
        """
        from smallq_deploy.package.releases import default_release, load_release

        if self.call.release is not None:
            return load_release(self.call.release)
        return (self.selection.chosen if self.selection is not None else None) or default_release(self._releases)

    @cached_property
    def selection(self) -> Selection | None:
        """How the release was chosen; None where there was no choice."""
        from smallq_deploy.package.selection import find_releases, select_release

        if self.call.release is not None:
            return None
        candidates = find_releases()
        self._releases = candidates.releases
        for item in candidates.unreadable:
            self.call.events.warning(f"a release is left out: {item.reasons[0]}")
        if len(candidates.releases) < 2:
            return None
        from smallq_deploy.machine.devices import unit_named
        from smallq_deploy.package.compat import Policy, Target

        unit = unit_named(self.soc, self.toolkit) if self.soc else ""
        return select_release(Target.of(self.environment, unit), candidates, Policy(**self.allow))

    @property
    def vendor(self) -> str:
        """The vendor directory's name. Without --release no manifest is read for it: `status` is to be quick."""
        if self.call.vendor is not None or self.call.release is None:
            return self.call.vendor or DEFAULT_VENDOR
        return self.release.vendor

    @cached_property
    def store(self) -> Store:
        """The generations beside the live directory."""
        from smallq_deploy.store.paths import Store

        return Store(self.toolkit.opp, self.vendor)
