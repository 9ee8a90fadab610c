"""``env``: shell lines that give a shell the toolkit's environment and the installed operator."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from smallq_deploy.cli.options import Call, command
from smallq_deploy.cli.render import Answer, Line
from smallq_deploy.cli.session import Session


def split_custom_paths(value: str, live: Path, operator: str) -> tuple[list[str], list[tuple[str, str]]]:
    """ASCEND_CUSTOM_OPP_PATH as (entries to keep, (entry, why it is left out)).

    The runtime asks these directories before config.ini (cann.md 6.1), so an entry that is a stale copy of our vendor
    directory, or another vendor with the same operator, would win over what is installed.
    """
    from smallq_deploy.package.vendortree import ops_of_vendor

    kept: list[str] = []
    dropped: list[tuple[str, str]] = []
    real_live = Path(os.path.realpath(live))
    for entry in dict.fromkeys(part for part in value.split(":") if part):
        real = Path(os.path.realpath(entry))
        if not real.is_dir():
            dropped.append((entry, "no such directory"))
        elif real == real_live:
            dropped.append((entry, "already found through vendors/config.ini"))
        elif real_live in real.parents:
            dropped.append((entry, "a leftover below the installed directory"))
        elif operator in ops_of_vendor(real):
            dropped.append((entry, f"holds another {operator}, which would win"))
        else:
            kept.append(entry)
    return kept, dropped


@command("env", example='eval "$(smallq-deploy env)"')
def env(call: Call) -> Answer:
    """Print shell lines for a bash in which programs find the installed operator.

    The lines source the toolkit's set_env.sh (also under `set -eu`), put the operator's library on LD_LIBRARY_PATH, and
    take out of ASCEND_CUSTOM_OPP_PATH what would hide the operator. With --opp and a directory of your own they put its
    vendor directories there. Nothing is changed on disk.
    """
    session = Session(call, mutating=False)
    toolkit, live = session.toolkit, session.store.live
    kept, dropped = split_custom_paths(os.environ.get("ASCEND_CUSTOM_OPP_PATH", ""), live, session.release.operator)
    # The vendor directories of a root of one's own are found through this variable alone.
    kept = [*toolkit.custom_paths, *(entry for entry in kept if os.path.realpath(entry) not in toolkit.custom_paths)]
    dropped = [item for item in dropped if os.path.realpath(item[0]) not in toolkit.custom_paths]
    set_env = shlex.quote(str(toolkit.set_env))
    lines = [
        f"# {call.toolkit_line}",
        "_smallq_deploy_options=$-",
        "set +eu",
        f". {set_env}",
        # set_env.sh never touches this variable, so an entry of an older shell or toolkit would stay in front.
        *(f"# left out of ASCEND_CUSTOM_OPP_PATH: {shlex.quote(entry)} ({why})" for entry, why in dropped),
        f"export ASCEND_CUSTOM_OPP_PATH={shlex.quote(':'.join(kept))}" if kept else "unset ASCEND_CUSTOM_OPP_PATH",
    ]
    if toolkit.sources.get("opp") == "--opp" and not toolkit.private:
        lines.append(f"export ASCEND_OPP_PATH={shlex.quote(str(toolkit.opp))}")
    library = live / "op_api" / "lib"
    if library.is_dir():
        value = shlex.quote(str(library))
        lines.append(f'export LD_LIBRARY_PATH={value}"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"')
    else:
        call.events.warning(f"{session.vendor} is not installed in {toolkit.vendors}")
        lines.append("# the operator is not installed")
    lines += [
        'case "$_smallq_deploy_options" in *e*) set -e ;; esac',
        'case "$_smallq_deploy_options" in *u*) set -u ;; esac',
        "unset _smallq_deploy_options",
    ]
    data = {
        "toolkit": toolkit.to_dict(),
        "live": str(live),
        "installed": library.is_dir(),
        "lines": lines,
        "left_out": [{"path": entry, "reason": why} for entry, why in dropped],
    }
    return Answer(data, [Line(line) for line in lines], raw=True)
