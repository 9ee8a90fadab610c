"""The command line ``smallq-deploy``: lazy subcommands, and the only place where errors become exit statuses.

A command's module is imported when the command is invoked; ``--version`` and the list of commands import none.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from smallq_deploy import __version__
from smallq_deploy.base.errors import ExitStatus, SmallqError, UsageError, access_error
from smallq_deploy.cli.options import ENV_PREFIX, Frame
from smallq_deploy.cli.render import Answer, print_blocks, print_error

PROGRAM = "smallq-deploy"

# name -> (module below smallq_deploy.cli, attribute, one line for the list)
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "detect": ("detect", "detect", "What is here: CANN toolkits, NPUs, driver."),
    "doctor": ("doctor", "doctor", "Every check at once, and how to mend what is wrong."),
    "build": ("build", "build", "Build the operator package from source."),
    "plan": ("install", "plan", "Say what `install` would do, and why."),
    "install": ("install", "install", "Install a package, prove it, keep it or roll back."),
    "smoke": ("smoke", "smoke", "Call the installed operator and check its numbers."),
    "sweep": ("sweep", "sweep", "Every shape of a matrix, on all devices, in parallel."),
    "verify": ("verify", "verify", "Compare the installed files with what was installed."),
    "status": ("status", "status", "What is installed now, and whether it is proven."),
    "facts": ("facts", "facts", "All about this machine in one look, for `fleet check`."),
    "history": ("status", "history", "What was installed, rolled back or removed, and when."),
    "rollback": ("change", "rollback", "Make an earlier generation live again."),
    "uninstall": ("change", "uninstall", "Remove the operator; generations are kept."),
    "gc": ("gc", "gc", "Delete generations that nobody needs; say which and why."),
    "pin": ("gc", "pin", "Keep a generation from `gc`."),
    "unpin": ("gc", "unpin", "Let `gc` decide over a generation again."),
    "repair": ("repair", "repair", "Fix what a hand-made install left behind."),
    "migrate": ("migrate", "migrate", "Bring operators of another CANN's tree into this one."),
    "recover": ("change", "recover", "Finish or undo what an interrupted command left."),
    "release": ("release", "release", "Releases of the operator: list, show, verify, fetch."),
    "cache": ("cache", "cache", "Look at the packages that `build` can reuse, or drop them."),
    "bundle": ("bundle", "bundle", "One file for machines without a network; Dockerfiles."),
    "fleet": ("fleet", "fleet", "Many hosts: check, install in waves, roll back, report."),
    "env": ("env", "env", "Shell lines that set up a shell for the operator."),
    "sandbox": ("sandbox", "sandbox", "Make or remove a simulated CANN toolkit."),
    "demo": ("demo", "demo", "Watch all of it in a simulated toolkit; leaves nothing."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-liners without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        frame = ctx.find_object(Frame)
        if frame is not None:
            frame.path = [cmd_name]
        module = importlib.import_module(f"smallq_deploy.cli.{entry[0]}")
        found = getattr(module, entry[1])
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise _no_such_command(args[0])
        return super().resolve_command(ctx, args)


def _no_such_command(name: str) -> UsageError:
    import difflib

    near = difflib.get_close_matches(name, _COMMANDS, n=1)
    hint = f"did you mean `{PROGRAM} {near[0]}`?" if near else f"`{PROGRAM} --help` lists the commands"
    return UsageError("NO_SUCH_COMMAND", f"there is no command {name!r}", hint=hint)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nEvery option can also be set in the environment: --recipes DIR is SMALLQ_DEPLOY_RECIPES=DIR.\n"
    "`smallq-deploy COMMAND --help` shows the options of a command and an example.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Take the SmallqFlashAttention operator from source to a proven install on an Ascend machine, and back.

    \b
    The usual way:  detect -> build -> plan -> install -> smoke
    And back:       rollback, uninstall
    """


def _usage(error: click.ClickException, frame: Frame) -> SmallqError:
    """click's usage errors in our form."""
    codes: tuple[tuple[type[click.ClickException], str], ...] = (
        (click.NoSuchOption, "NO_SUCH_OPTION"),
        (click.MissingParameter, "MISSING_PARAMETER"),
        (click.BadParameter, "BAD_VALUE"),
    )
    code = next((code for kind, code in codes if isinstance(error, kind)), "USAGE")
    message = error.format_message().rstrip(".")
    where = " ".join([PROGRAM, *frame.path])
    return UsageError(code, message[:1].lower() + message[1:], hint=f"`{where} --help` shows how it is used")


def _json_wanted(arguments: Sequence[str]) -> bool:
    """Before click has parsed anything: may the caller read JSON from stdout?"""
    if os.environ.get(ENV_PREFIX + "JSON", "").lower() in ("1", "true", "yes", "on", "t", "y"):
        return True
    return "--json" in (arguments[: list(arguments).index("--")] if "--" in arguments else arguments)


def _attempt(arguments: Sequence[str], frame: Frame, verbose: bool) -> Answer | SmallqError | None:
    """Run the command; None when click has answered itself (--help, --version)."""
    try:
        result: Any = cli.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=frame)
        return result if isinstance(result, Answer) else None
    except SmallqError as error:
        return error
    except click.exceptions.NoArgsIsHelpError as error:
        where = " ".join([PROGRAM, *frame.path])
        if error.ctx is not None and not _json_wanted(arguments):
            sys.stderr.write(error.ctx.get_help() + "\n")
            frame.helped = True
        return UsageError("MISSING_COMMAND", "no command was given", hint=f"`{where} --help` lists them")
    except click.ClickException as error:
        return _usage(error, frame)
    except (KeyboardInterrupt, click.Abort) as error:
        stop = SmallqError("INTERRUPTED", "interrupted", hint=f"`{PROGRAM} status` says whether anything is left open")
        stop.exit_status = ExitStatus.INTERRUPTED
        stop.__cause__ = error if isinstance(error, KeyboardInterrupt) else None
        return stop
    except BrokenPipeError:
        raise
    except PermissionError as error:
        return access_error(error, f"use {error.filename}" if error.filename else "go on")
    except Exception as error:
        if verbose:
            import traceback

            traceback.print_exc()
        return SmallqError(
            "INTERNAL",
            f"internal error: {type(error).__name__}: {error}",
            hint="this is a bug in smallq-deploy: please report it, with the output of the same command and -v",
        )


def _error_of(outcome: Answer | SmallqError | None) -> SmallqError | None:
    return outcome.error if isinstance(outcome, Answer) else outcome


def _status_of(outcome: Answer | SmallqError | None) -> int:
    error = _error_of(outcome)
    return int(error.exit_status) if error is not None else int(ExitStatus.OK)


def _finish(outcome: Answer | SmallqError | None, frame: Frame, as_json: bool, verbose: bool) -> int:
    if outcome is None:
        return ExitStatus.OK
    call = frame.call
    error, status = _error_of(outcome), _status_of(outcome)
    if call is not None:
        call.progress.pause()
        if error is not None:
            from smallq_deploy.cli.render import error_lines

            for line in error_lines(error, verbose=True):
                call.progress.log(line)
        call.progress.close()
    no_color = call.no_color if call is not None else "--no-color" in sys.argv
    if as_json or (call is not None and call.json):
        from smallq_deploy.cli.envelope import dump, make_envelope

        # A use case that fails half-way hands over what it has as details["report"].
        data = outcome.data if isinstance(outcome, Answer) else outcome.details.pop("report", {})
        document = make_envelope(
            call.command if call is not None else " ".join(frame.path),
            data=data,
            warnings=call.events.warnings if call is not None else (),
            errors=[error] if error is not None else [],
            exit_status=status,
        )
        sys.stdout.write(dump(document))
        sys.stdout.flush()
        return status
    if isinstance(outcome, Answer):
        if call is not None and call.toolkit_line and not outcome.raw:
            sys.stdout.write(call.toolkit_line + "\n")
        print_blocks(outcome.blocks, no_color=no_color, raw=outcome.raw)
    elif call is not None and call.toolkit_line:
        sys.stderr.write(call.toolkit_line + "\n")
    if error is not None and not frame.helped:
        print_error(error, verbose=verbose, no_color=no_color)
    return status


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status (base/errors.py ExitStatus)."""
    frame = Frame()
    as_json = _json_wanted(arguments)
    verbose = any(part == "--verbose" or (part[:1] == "-" and part[1:].strip("v") == "" and part != "-")
                  for part in arguments)  # fmt: skip
    try:
        outcome = _attempt(arguments, frame, verbose)
        try:
            return _finish(outcome, frame, as_json, verbose)
        except KeyboardInterrupt:
            return _status_of(outcome)  # only the telling was interrupted: what was done is done
    except BrokenPipeError:
        # The reader of our output has gone (| head): nothing more to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.OK
