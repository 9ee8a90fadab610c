"""The options that many commands share, and the factory that makes a click command of a function.

Every option can also come from an environment variable: ``SMALLQ_DEPLOY_`` and the option's long name in capitals
(``--recipes`` is ``SMALLQ_DEPLOY_RECIPES``). The command line wins.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from smallq_deploy.base.errors import ExitStatus, SmallqError, UsageError
from smallq_deploy.base.events import Events
from smallq_deploy.cli.progress import Progress
from smallq_deploy.cli.render import Answer

ENV_PREFIX = "SMALLQ_DEPLOY_"
PATH = click.Path(path_type=Path)


class Declined(SmallqError):
    """The user answered no."""

    exit_status = ExitStatus.INTERRUPTED

    def __init__(self) -> None:
        super().__init__("DECLINED", "you answered no; nothing was changed")


@dataclass
class Call:
    """One invocation of a command: its common options, and where its events go."""

    command: str
    progress: Progress
    events: Events
    json: bool = False
    verbose: int = 0
    quiet: bool = False
    no_color: bool = False
    yes: bool = False
    dry_run: bool = False
    wait: float = 0.0
    cann: Path | None = None
    opp: Path | None = None
    vendor: str | None = None
    release: Path | None = None
    toolkit_line: str = ""

    @property
    def interactive(self) -> bool:
        """True when there is somebody to ask."""
        return not (self.json or self.yes) and sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> None:
        """Ask on a terminal; raises :class:`Declined` for no. Without a terminal, with --yes or --json: go on."""
        if self.interactive:
            self.progress.pause()
            if not click.confirm(question, default=False, err=True):
                raise Declined

    def must_confirm(self, question: str, what: str) -> None:
        """For what cannot be taken back: without a terminal only --yes is an answer."""
        if not self.yes and not self.interactive:
            raise UsageError("CONFIRMATION_NEEDED", f"{what} cannot be taken back", hint="say --yes if you mean it")
        self.confirm(question)


@dataclass
class Frame:
    """What ``main`` needs to know about the command that click chose, also when it raises."""

    call: Call | None = None
    path: list[str] = field(default_factory=list)
    helped: bool = False


def option(*names: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``click.option`` with the environment variable of its long name."""
    long_name = next(name for name in names if name.startswith("--"))
    variable = ENV_PREFIX + long_name.split("/")[0].strip("- ").upper().replace("-", "_")
    return click.option(*names, envvar=variable, **attributes)


_OUTPUT = (
    option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout instead of text."),
    option("--quiet", "-q", is_flag=True, help="No progress on stderr; warnings and errors stay."),
    option("--verbose", "-v", count=True, help="Show what child processes print, and the causes of errors."),
    option("--log-file", type=PATH, metavar="FILE", help="Append everything that happens to FILE."),
    option("--no-color", is_flag=True, help="Plain text also on a terminal (as does NO_COLOR=1)."),
)
_TOOLKIT = (
    option(
        "--cann",
        type=PATH,
        metavar="DIR",
        help="The CANN toolkit: its home, or the directory it was installed under. Default: search, see `detect`.",
    ),
    option("--opp", type=PATH, metavar="DIR", help="The opp directory to work on. Default: the toolkit's own."),
    option("--vendor", metavar="NAME", help="The vendor directory under opp/vendors. Default: the release's."),
)
_RELEASE = (
    option(
        "--release",
        type=PATH,
        metavar="FILE",
        help="The operator release (a manifest). Default: the one this tool comes with.",
    ),
)
_MUTATING = (
    option("--dry-run", is_flag=True, help="Say what would be done, and change nothing."),
    option("--yes", "-y", is_flag=True, help="Do not ask."),
    option(
        "--wait",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Wait this long for another smallq-deploy on the same opp to end. Default: not at all.",
    ),
)
_COMMON_NAMES = frozenset(
    (
        "as_json",
        "quiet",
        "verbose",
        "log_file",
        "no_color",
        "cann",
        "opp",
        "vendor",
        "release",
        "dry_run",
        "yes",
        "wait",
    )
)


def command(
    name: str, *, example: str, toolkit: bool = True, mutating: bool = False, release: bool = False
) -> Callable[[Callable[..., Answer]], click.Command]:
    """Make a click command of a function that takes a :class:`Call` and its own options and returns an Answer."""

    def decorate(function: Callable[..., Answer]) -> click.Command:
        @functools.wraps(function)
        @click.pass_context
        def callback(context: click.Context, /, **values: Any) -> Answer:
            call = _make_call(name, values)
            frame = context.find_object(Frame)
            if frame is not None:
                frame.call = call
            return function(call, **values)

        body: Callable[..., Any] = callback
        groups = [*(_TOOLKIT if toolkit else ()), *(_RELEASE if release else ()), *(_MUTATING if mutating else ())]
        for add in reversed([*groups, *_OUTPUT]):
            body = add(body)
        made = click.command(
            name.rpartition(" ")[2],
            epilog=f"\b\nExample:\n  {example}",
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )(body)
        # What is special to a command stands first in its help.
        made.params.sort(key=lambda parameter: parameter.name in _COMMON_NAMES)
        return made

    return decorate


class Group(click.Group):
    """Commands under one name: ``bundle create``."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        frame = ctx.find_object(Frame)
        if frame is not None and cmd_name in self.commands:
            frame.path = [self.name or "", cmd_name]
        return super().get_command(ctx, cmd_name)


def group(*, epilog: str) -> Callable[[Callable[..., Any]], click.Group]:
    """``click.group`` for a :class:`Group`."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    return click.group(cls=Group, context_settings=settings, epilog=epilog)


def _make_call(name: str, values: dict[str, Any]) -> Call:
    as_json, quiet, verbose = values.pop("as_json"), values.pop("quiet"), values.pop("verbose")
    no_color = values.pop("no_color")
    progress = Progress(
        quiet=quiet,
        silent=as_json and not verbose,
        show_output=verbose > 0 or (name == "build" and not as_json),
        no_color=no_color,
        log_file=values.pop("log_file"),
    )
    kept = ("yes", "dry_run", "wait", "cann", "opp", "vendor", "release")
    common = {key: values.pop(key) for key in kept if key in values}
    return Call(
        command=name,
        progress=progress,
        events=Events(sink=progress),
        json=as_json,
        verbose=verbose,
        quiet=quiet,
        no_color=no_color,
        **common,
    )
