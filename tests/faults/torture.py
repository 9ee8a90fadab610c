"""A stranger's torture: random commands of the real tool on one simulated toolkit, many of them killed.

    python -m tests.faults.torture [--commands 200] [--seed N] [--keep]

Everything happens in a directory of its own. A third of the commands get SIGKILL, with all their children, at a random
moment; between them somebody edits, deletes and installs by hand. No answer may be a traceback or INTERNAL, and another
vendor's files never change. In the end four commands that anybody would type (recover, install, verify, smoke) must
succeed, ``doctor`` must find nothing wrong, and nothing may be left over or running. Ends with status 1 otherwise.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.cli.demo_steps import KERNEL, RIGHT, WRONG
from smallq_deploy.store.paths import Store
from tests.support.processes import left_running
from tests.support.world import live_digest, others_digest, settled_problems

CHECKOUT = Path(__file__).resolve().parents[2]
HANG = 180.0  # seconds after which a command counts as hanging
KILLED = 0.35  # share of the commands


class Torture:
    """One simulated toolkit, its packages, and the stranger's dice."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place = place
        self.chance = random.Random(seed)
        self.violations: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.seconds: dict[str, float] = {}  # how long each kind of command took when nobody killed it
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith(("ASCEND_", "SMALLQ_"))},
            "HOME": str(place),
            "XDG_DATA_HOME": str(place / "data"),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(CHECKOUT / ".venv" / "cache")),
            "PYTHONPATH": str(CHECKOUT),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "smallq_deploy", *arguments],
            env=self.environment,
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit status and the JSON document of a command that nobody kills."""
        begun = time.monotonic()
        child = self.start(*arguments, "--json")
        try:
            out, err = child.communicate(timeout=HANG)
            self.seconds[arguments[0]] = time.monotonic() - begun
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            self.violations.append(f"{' '.join(arguments)}: did not end within {HANG:.0f} s")
            return -9, {}
        what = f"{' '.join(arguments)} ended {child.returncode}"
        if "Traceback" in err or child.returncode < 0:
            self.violations.append(f"{what}: {err[-600:]}")
        try:
            document: dict[str, Any] = json.loads(out)
        except ValueError:
            self.violations.append(f"{what} without a JSON document: {out[-200:]!r} {err[-300:]}")
            return child.returncode, {}
        codes = [error["code"] for error in document["errors"]]
        if "INTERNAL" in codes:
            self.violations.append(f"{what}: {document['errors']}")
        self.counts.update(codes)
        return child.returncode, document

    def prepare(self) -> None:
        """The toolkit, another vendor, and three packages: the operator, the same again, one that computes wrong."""
        print("making a simulated toolkit and three packages", flush=True)
        self.must("sandbox", "create", "ascend")
        (opp,) = (path.resolve() for path in (self.place / "ascend").glob("cann-*/opp"))
        self.store = Store(opp)
        self.recipes = self.place / "ascend" / "cann-recipes-infer"
        other = self.store.vendors / "other" / "op_api"
        other.mkdir(parents=True)
        (other / "file").write_text("theirs")
        self.store.config_ini.write_text("load_priority=other\n")
        self.others = others_digest(self.store)
        self.packages = [self.build("good"), self.build("again", "// once more\n"), self.build("wrong", wrong=True)]
        self.must("install", str(self.packages[0]), *self.here)

    @property
    def here(self) -> tuple[str, ...]:
        return ("--cann", str(self.place / "ascend"))

    def build(self, name: str, added: str = "", *, wrong: bool = False) -> Path:
        sources = self.place / f"sources-{name}"
        shutil.copytree(CHECKOUT / "src_op" / "smallq_flash_attention", sources)
        text = (sources / KERNEL).read_text()
        assert text.count(RIGHT) == 1, f"the line to change is not in {KERNEL}"
        (sources / KERNEL).write_text(added + (text.replace(RIGHT, WRONG) if wrong else text))
        target = self.place / f"packages-{name}"
        self.must("build", "--sources", str(sources), "--recipes", str(self.recipes), "-o", str(target), *self.here)
        (package,) = target.glob("*.run")
        return package

    def must(self, *arguments: str) -> dict[str, Any]:
        status, document = self.run(*arguments)
        if status != 0:
            text = f"{' '.join(arguments)} ended {status}: {document.get('errors')}"
            self.violations.append(text)
            if not hasattr(self, "others"):
                raise SystemExit(text)
        return document

    def command(self) -> tuple[str, ...]:
        """What the stranger types next."""
        chance = self.chance
        package = str(chance.choices(self.packages, (4, 4, 2))[0])
        number = str(chance.randint(0, 12))
        smoke = chance.choice(((), (), ("--no-smoke",)))
        choices: list[tuple[int, tuple[str, ...]]] = [
            (8, ("install", package, *smoke)),
            (3, ("install", package, "--reinstall", *smoke)),
            (2, ("install", package, "--use-installer", "--drop-foreign", *smoke)),
            (2, ("plan", package)),
            (6, ("rollback", *smoke)),
            (3, ("rollback", "--to", number, *smoke)),
            (3, ("uninstall",)),
            (1, ("uninstall", "--purge", "--yes")),
            (1, ("uninstall", "--restore-adopted")),
            (3, ("gc", "--yes", "--keep", str(chance.randint(0, 3)))),
            (2, (chance.choice(("pin", "unpin")), number)),
            (3, ("repair", *smoke)),
            (4, ("verify", "--repair", *smoke)),
            (3, ("verify",)),
            (3, ("status",)),
            (2, ("smoke",)),
            (2, ("recover",)),
            (2, ("history",)),
            (2, ("doctor",)),
        ]
        return (*chance.choices([item for _, item in choices], [weight for weight, _ in choices])[0], *self.here)

    def by_hand(self) -> str:
        """Somebody who does not use the tool at all."""
        chance, live = self.chance, self.store.live
        files = sorted(path for path in live.rglob("*") if path.is_file() and not path.is_symlink())
        kind = chance.choice(("edit", "delete", "chmod", "add", "remove all", "README", "nested README", "config"))
        if kind == "config":
            self.store.config_ini.write_text(
                chance.choice(("load_priority=other\n", "load_priority=other,customize\n"))
            )
        elif kind.endswith("README"):
            package = self.packages[chance.randint(0, 1)]
            script = f"source ascend/cann/set_env.sh; bash {package} --quiet --install-path={live}"
            flatten = f"; cp -rf {live}/vendors/customize/. {live}/; rm -rf {live}/vendors"
            command = script + ("" if kind.startswith("nested") else flatten)
            subprocess.run(
                ["bash", "-c", command], cwd=self.place, env=self.environment, capture_output=True, timeout=HANG
            )
        elif kind == "remove all":
            shutil.rmtree(live, ignore_errors=True)
        elif kind == "add":
            if live.is_dir():
                (live / f"stray-{chance.randint(0, 9)}").write_text("stray")
        elif files:
            victim = chance.choice(files)
            if kind == "edit":
                victim.write_bytes(victim.read_bytes()[:-1] + b"!")
            elif kind == "delete":
                victim.unlink()
            else:
                victim.chmod(0o600)
        return kind

    def step(self) -> str:
        """One command or one hand at work; what happened, in words."""
        if self.chance.random() < 0.12:
            return f"by hand: {self.by_hand()}"
        command = self.command()
        shown = " ".join(Path(part).parent.name if part.endswith(".run") else part for part in command[:-2])
        if self.chance.random() >= KILLED:
            status, _ = self.run(*command)
            return f"{shown}: {status}"
        child = self.start(*command)
        try:
            child.wait(self.chance.uniform(0.1, 1.0) * self.seconds.get(command[0], 0.3))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate(timeout=HANG)
        self.counts["(killed)" if child.returncode == -9 else "(was quicker)"] += 1
        return f"{shown}: {'killed' if child.returncode == -9 else child.returncode}"

    def check(self, what: str) -> None:
        """What must hold at any moment, also right after a kill."""
        if others_digest(self.store) != self.others:
            self.violations.append(f"{what}: another vendor's files changed")

    def finish(self) -> None:
        """What anybody would type, and then everything is well."""
        self.must("recover", *self.here)
        self.must("install", str(self.packages[0]), "--drop-foreign", *self.here)
        self.must("verify", *self.here)
        self.must("smoke", *self.here)
        document = self.must("doctor", *self.here)
        checks = document.get("data", {}).get("checks", [])
        bad = [item for item in checks if item.get("result") == "fail" or item.get("status") == "fail"]
        if not checks or bad:
            self.violations.append(f"doctor: {bad or 'it checked nothing'}")
        self.violations += settled_problems(self.store, (live_digest(self.store),), self.others)
        self.violations += [f"left running: {line}" for line in left_running(str(self.place))]


def main() -> int:
    parser = argparse.ArgumentParser(description="Random commands and kills on a simulated toolkit.")
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="leave the directory")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="smallq-torture-"))
    torture = Torture(place, arguments.seed)
    print(f"seed {arguments.seed}, {arguments.commands} commands, simulated toolkit", flush=True)
    begun = time.monotonic()
    try:
        torture.prepare()
        for number in range(1, arguments.commands + 1):
            done = torture.step()
            torture.check(f"{number} {done}")
            print(f"{number:4d}  {done}", flush=True)
        torture.finish()
        digest = tree_digest(torture.store.live)[:12]
    finally:
        if not arguments.keep:
            shutil.rmtree(place, ignore_errors=True)
    for text in torture.violations:
        print(f"VIOLATION {text}")
    answers = ", ".join(f"{name} {count}" for name, count in torture.counts.most_common())
    print(f"answers: {answers}")
    print(
        f"{arguments.commands} commands in {time.monotonic() - begun:.0f} s, {torture.counts['(killed)']} killed; "
        f"live {digest}; {len(torture.violations)} violations (seed {arguments.seed}, simulated toolkit)"
    )
    return 1 if torture.violations else 0


if __name__ == "__main__":
    sys.exit(main())
