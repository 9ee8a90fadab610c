"""What an install would do, and why or why not. The same object is printed by ``plan`` and executed by ``install``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from smallq_deploy.base.errors import SmallqError, access_error
from smallq_deploy.operate.foreign import Holding, holdings
from smallq_deploy.operate.preflight import Facts, after_order, check, gather_facts, verdict_on
from smallq_deploy.store.generations import next_number
from smallq_deploy.store.live import check_place
from smallq_deploy.store.recovery import refuse_open, steady

if TYPE_CHECKING:
    from smallq_deploy.machine.environment import Environment
    from smallq_deploy.package.compat import Verdict
    from smallq_deploy.package.releases import Release
    from smallq_deploy.package.runfile import RunFile
    from smallq_deploy.package.selection import Rejection
    from smallq_deploy.store.paths import Store


@dataclass(frozen=True)
class InstallOptions:
    """What the user asked for besides the package.

    ``unit`` overrides the compute unit of the devices; ``wait_seconds`` is how long to wait for the lock; ``device`` is
    only told in the plan, the smoke test itself is handed to ``install``.
    """

    use_installer: bool = False
    keep_unproven: bool = False
    no_smoke: bool = False
    reinstall: bool = False
    allow_prerelease: bool = False
    allow_untested: bool = False
    allow_shadowed: bool = False
    allow_downgrade: bool = False
    drop_foreign: bool = False
    priority_first: bool = False
    dry_run: bool = False
    unit: str = ""
    device: str = "auto"
    wait_seconds: float = 0.0

    @property
    def recorded(self) -> dict[str, bool]:
        """What the generation remembers: everything that made it less sure than usual."""
        names = (
            "use_installer",
            "keep_unproven",
            "no_smoke",
            "allow_prerelease",
            "allow_untested",
            "allow_shadowed",
            "allow_downgrade",
            "drop_foreign",
        )
        return {name: True for name in names if getattr(self, name)}


@dataclass(frozen=True)
class Plan:
    """``decision``: install, reinstall, nothing (already live and proven) or refused (see ``problems``)."""

    decision: str
    reasons: tuple[str, ...]
    steps: tuple[str, ...]
    problems: tuple[SmallqError, ...]
    warnings: tuple[str, ...]
    space_needed: int
    environment: Environment
    release: Release
    store: Store
    run: RunFile
    options: InstallOptions
    facts: Facts | None = field(default=None, repr=False)
    operators: tuple[Holding, ...] = ()
    passed_over: tuple[Rejection, ...] = ()  # other releases, and why they were not taken

    @property
    def only_needs_recovery(self) -> bool:
        """True when nothing but an interrupted transaction stands in the way: ``install`` recovers by itself."""
        return bool(self.problems) and all(item.code == "OPEN_TRANSACTION" for item in self.problems)

    @property
    def verdict(self) -> Verdict:
        """What release and compatibility data say of this machine."""
        compat = self.facts.compat if self.facts else None
        return verdict_on(self.environment, self.release, self.run, compat, self.options)

    def to_dict(self) -> dict[str, Any]:
        toolkit = self.environment.toolkit
        options = asdict(self.options)
        live = self.facts.live.to_dict() if self.facts else None
        return {
            "decision": self.decision,
            "reasons": list(self.reasons),
            "steps": list(self.steps),
            "problems": [problem.to_dict() for problem in self.problems],
            "warnings": list(self.warnings),
            "space_needed": self.space_needed,
            "toolkit": {"version": str(toolkit.version), "home": str(toolkit.home), "remark": toolkit.remark}
            if toolkit
            else None,
            "vendor": self.store.vendor,
            "target": str(self.store.live),
            "live": live,
            "release": {"name": self.release.name, "version": self.release.version},
            "passed_over": [item.to_dict() for item in self.passed_over],
            "package": {
                "path": str(self.run.path),
                "sha256": self.run.file_sha256,
                "vendor": self.run.vendor,
                "arch": self.run.arch,
                "units": list(self.run.units),
                "ops": sorted(self.run.ops),
            },
            "operators": [item.to_dict() for item in self.operators],
            "compatibility": self.verdict.to_dict(),
            "options": options,
        }


def make_plan(
    environment: Environment, release: Release, store: Store, run: RunFile, options: InstallOptions | None = None
) -> Plan:
    """Decide what an install of ``run`` would do; changes nothing and takes no lock.

    Everything that stands in the way is in ``problems`` (decision ``refused``), also what the looking itself ran into.
    """
    options = options or InstallOptions()
    refused = Plan("refused", (), (), (), (), 0, environment, release, store, run, options)
    try:
        check_place(store)
        refuse_open(store)
        facts = steady(store, lambda: gather_facts(store, run, release))
    except (SmallqError, OSError) as error:
        problem = error if isinstance(error, SmallqError) else access_error(error, f"look at {store.vendors}")
        return replace(refused, problems=(problem,), reasons=(problem.message,))
    problems, warnings = check(facts, environment, release, store, run, options)
    same, why = _same(facts, store, run, options)
    operators = holdings(
        store.vendor,
        live=facts.tree.op_units,
        new=run.op_units,
        others=facts.others,
        built_in=facts.built_in,
        order=after_order(facts.config, store.vendor, options.priority_first),
    )
    seen = replace(refused, warnings=warnings, space_needed=facts.space_needed, facts=facts, operators=operators)
    if same and not options.reinstall and not any(problem.code == "VENDOR_MISMATCH" for problem in problems):
        return replace(seen, decision="nothing", reasons=(why,), space_needed=0)
    if problems:
        return replace(seen, problems=problems, reasons=tuple(problem.message for problem in problems))
    decision = "reinstall" if _is_live_package(facts, run) else "install"
    return replace(seen, decision=decision, reasons=(why,), steps=_steps(facts, store, run, options))


def _is_live_package(facts: Facts, run: RunFile) -> bool:
    live = facts.live
    return live.kind == "current" and live.generation is not None and live.generation.package_sha256 == run.file_sha256


def _same(facts: Facts, store: Store, run: RunFile, options: InstallOptions) -> tuple[bool, str]:
    """Is this package live, proven and found by CANN already? And the reason for what follows, in words."""
    live = facts.live
    if live.kind == "absent":
        return False, f"nothing is installed in {store.live}"
    if live.kind == "removed":
        return False, f"{store.live} was removed since the last install"
    if live.kind == "unknown":
        return False, f"{store.live} holds files that smallq-deploy did not install; they are kept as a generation"
    generation = live.generation
    assert generation is not None
    if live.kind == "changed":
        return False, f"{store.live} is not as generation {generation.number} was installed"
    if generation.package_sha256 != run.file_sha256:
        return False, f"generation {generation.number} is live, from another package"
    if store.vendor not in facts.config.names or not facts.config.clean:
        return False, f"{store.config_ini} does not name {store.vendor} in the form every reader of CANN accepts"
    if options.priority_first and facts.config.names[0] != store.vendor:
        return False, f"{store.vendor} is to come first in {store.config_ini}"
    if not generation.proven and not options.no_smoke:
        return False, f"generation {generation.number} is this package, but was never proven by a smoke test"
    if options.reinstall:
        return False, f"generation {generation.number} is this package; --reinstall installs it again"
    proven = "and proven" if generation.proven else "(unproven)"
    return True, f"generation {generation.number} is this package, it is live {proven}"


def _steps(facts: Facts, store: Store, run: RunFile, options: InstallOptions) -> tuple[str, ...]:
    number = next_number(store)
    steps = []
    if facts.live.kind in ("unknown", "changed"):
        steps.append(f"keep {store.live} as generation {number} (adopted), to roll back to")
        number += 1
    how = "run the package's own installer into" if options.use_installer else "extract the package into"
    steps.append(f"{how} a staging directory beside it ({len(run.members)} members)")
    steps.append("flatten, set modes and bin/set_env.bash, check every file, make it durable")
    if facts.live.exists:
        steps.append(f"exchange it with {store.live} in one step")
    else:
        steps.append(f"rename it to {store.live}")
    order = ",".join(after_order(facts.config, store.vendor, options.priority_first))
    if tuple(order.split(",")) != facts.config.names or not facts.config.clean:
        steps.append(f"write {store.config_ini}: load_priority={order}")
    if options.no_smoke:
        steps.append(f"keep it as generation {number}, unproven (--no-smoke)")
    else:
        steps.append(f"smoke test: call the operator through aclnn in a fresh process (device {options.device})")
        steps.append(f"keep it as generation {number} when it passes, else put the old state back")
    return tuple(steps)
