"""The steps of ``demo``, in order. Each runs commands as a user would type them and checks what they left on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from smallq_deploy.base.fsops import tree_digest
from smallq_deploy.cli.demo import Stage, StepFailedError

UNIT = "ascend910b"
KERNEL = "op_kernel/smallq_flash_attention_softmax.h"
# The line of the online softmax that multiplies scores by 1/sqrt(d), before and after.
RIGHT, WRONG = "shape.scale, kRepeatFloats", "shape.scale * 1.25f, kRepeatFloats"

STEPS = (
    "simulated toolkit",
    "another vendor's operator",
    "build",
    "a hand-made nested install",
    "plan",
    "install, adopt, prove",
    "status, smoke, verify",
    "broken kernel: automatic rollback",
    "roll back to the adopted state",
    "roll forward",
    "uninstall",
    "the README's three lines",
    "repair",
    "uninstall again, others untouched",
)


class _World:
    """Paths of the demo's toolkit, and what was seen in earlier steps."""

    def __init__(self, stage: Stage) -> None:
        self.root = stage.root
        self.home = stage.root / "ascend" / "cann-8.5.0"
        self.vendors = self.home / "opp" / "vendors"
        self.live = self.vendors / "customize"
        self.other = self.vendors / "other"
        self.digests: dict[str, str] = {}
        self.package = Path()

    @property
    def load_priority(self) -> str:
        config = self.vendors / "config.ini"
        return config.read_text().strip() if config.exists() else "(no config.ini)"


def play(stage: Stage) -> None:
    """All steps. Raises StepFailedError at the first that does not come out right."""
    world = _World(stage)
    for title, (story, act) in zip(STEPS, _ACTS, strict=True):
        with stage.step(title, story):
            act(stage, world)


def _toolkit(stage: Stage, world: _World) -> None:
    stage.tool("sandbox", "create", "ascend")
    stage.set_env = world.home / "set_env.sh"
    stage.tool("detect", lines=14)
    stage.check(not world.live.exists(), "no operator is installed")


def _foreign(stage: Stage, world: _World) -> None:
    stage.shell("cp -r ascend/cann-recipes-infer/ops/ascendc other-project")
    stage.shell("""sed -i 's/VENDOR_NAME "customize"/VENDOR_NAME "other"/' other-project/CMakeLists.txt""")
    stage.shell(
        f"bash other-project/build.sh -n vec_add_sample -c {UNIT} > other.log 2>&1 || (tail -20 other.log; false)"
    )
    stage.shell("bash other-project/output/CANN-custom_ops*.run --quiet")
    stage.check(world.load_priority == "load_priority=other", "config.ini names the other vendor")
    world.digests["other"] = tree_digest(world.other)


def _build(stage: Stage, world: _World) -> None:
    stage.tool("build", "--rebuild", "--quiet", "-o", "packages")
    (world.package,) = (world.root / "packages").glob("*.run")


def _nested(stage: Stage, world: _World) -> None:
    package = world.package.relative_to(world.root)
    stage.shell(f"bash {package} --quiet --install-path=$ASCEND_HOME_PATH/opp/vendors/customize")
    stage.check((world.live / "vendors" / "customize" / "op_api").is_dir(), "the files lie one level too deep")
    world.digests["found"] = tree_digest(world.live)


def _plan(stage: Stage, world: _World) -> None:
    stage.tool("plan")
    stage.check(tree_digest(world.live) == world.digests["found"], "nothing was changed")


def _install(stage: Stage, world: _World) -> None:
    stage.tool("install")
    stage.check((world.live / "op_api").is_dir() and not (world.live / "vendors").exists(), "the layout is flat")
    stage.check(world.load_priority == "load_priority=other,customize", "config.ini names both vendors, in order")
    world.digests["good"] = tree_digest(world.live)


def _look(stage: Stage, world: _World) -> None:
    stage.tool("status")
    stage.tool("smoke", "--quiet")
    stage.tool("verify")


def _broken(stage: Stage, world: _World) -> None:
    from smallq_deploy.package.data import data_root

    copy = world.root / "changed-kernel"
    shutil.copytree(data_root() / "src_op" / "smallq_flash_attention", copy)
    text = (copy / KERNEL).read_text()
    if text.count(RIGHT) != 1:
        raise StepFailedError(f"the line to change is not in {KERNEL}")
    (copy / KERNEL).write_text(text.replace(RIGHT, WRONG))
    stage.say(f"   in a copy of the kernel, {KERNEL}: {RIGHT.split(',')[0]} became {WRONG.split(',')[0]}")
    stage.tool("build", "--rebuild", "--quiet", "--sources", "changed-kernel", "-o", "changed-packages")
    (package,) = (world.root / "changed-packages").glob("*.run")
    stage.tool("install", str(package.relative_to(world.root)), expect=9)
    stage.check(tree_digest(world.live) == world.digests["good"], "the good install is live again, byte for byte")
    stage.tool("smoke", "--quiet")


def _back(stage: Stage, world: _World) -> None:
    stage.tool("rollback", expect=9)
    stage.check(
        tree_digest(world.live) == world.digests["found"], "the tree is what was found before us, byte for byte"
    )


def _forward(stage: Stage, world: _World) -> None:
    stage.tool("rollback")
    stage.check(tree_digest(world.live) == world.digests["good"], "the tree is the installed one, byte for byte")
    current = stage.ask("status").get("current") or {}
    stage.check(current.get("proven") is True, "status calls it proven")


def _remove(stage: Stage, world: _World) -> None:
    stage.tool("uninstall")
    stage.check(not world.live.exists(), "the vendor directory is gone")
    stage.check(world.load_priority == "load_priority=other", "config.ini names the other vendor only")


def _by_hand(stage: Stage, world: _World) -> None:
    package = world.package.relative_to(world.root)
    where = "$ASCEND_HOME_PATH/opp/vendors/customize"
    stage.shell(f"bash {package} --quiet --install-path={where}")
    stage.shell(f"cp -rf {where}/vendors/customize/. {where}/")
    stage.shell(f"rm -rf {where}/vendors")
    stage.tool("smoke", "--quiet", expect=9)
    stage.tool("verify", expect=10)


def _repair(stage: Stage, world: _World) -> None:
    stage.tool("repair")
    stage.tool("smoke", "--quiet")
    stage.tool("verify")
    stage.check("customize" in world.load_priority, "config.ini names customize")


def _leave(stage: Stage, world: _World) -> None:
    stage.tool("history")
    stage.tool("uninstall", "--purge", "--yes")
    stage.check(not world.live.exists(), "the vendor directory is gone")
    stage.check(world.load_priority == "load_priority=other", "config.ini names the other vendor only")
    stage.check(tree_digest(world.other) == world.digests["other"], "the other vendor is untouched, byte for byte")


_ACTS = (
    ("A directory that looks and behaves like CANN 8.5.0 with eight Ascend910B3.", _toolkit),
    ("Somebody else's operator, built and installed by hand: it must never be touched.", _foreign),
    ("The real kernel source, compiled by the toolkit's own build.sh from a private copy of the checkout.", _build),
    ("What the usual README leaves before its second line: the package's installer nests the directory.", _nested),
    ("What install would do, and why. It changes nothing.", _plan),
    ("One exchange of directories; the nested one is kept as generation 1; then a real aclnn call.", _install),
    ("What is live, does it compute, is it what was installed?", _look),
    ("A package whose kernel has one arithmetic line changed builds well and computes wrong numbers.", _broken),
    (
        "By hand, to exactly what was there before us. A nested install never worked, and rollback says so (9).",
        _back,
    ),
    ("Rolling back twice returns.", _forward),
    ("Our directory and our entry in config.ini go; generations stay.", _remove),
    ("Run the .run, cp -rf, rm -rf: without repair, smoke and verify name what is wrong.", _by_hand),
    ("The same transaction as an install; afterwards everything is in place.", _repair),
    ("Nothing of ours stays, nothing of others changed.", _leave),
)
