"""The command line: `tunesmith` and its commands. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import tempfile
import textwrap
import traceback
from shutil import get_terminal_size
from typing import Annotated, cast

import typer

from tunesmith import __version__
from tunesmith.cli.audit import audit
from tunesmith.cli.compare import compare
from tunesmith.cli.demo import demo
from tunesmith.cli.doctor import doctor
from tunesmith.cli.evaluate import evaluate
from tunesmith.cli.options import discard_output
from tunesmith.cli.plan import plan
from tunesmith.cli.predict import predict
from tunesmith.cli.preview import preview
from tunesmith.cli.rank import each_model_named, rank
from tunesmith.cli.rate import rate
from tunesmith.cli.report import report
from tunesmith.cli.search import search
from tunesmith.cli.train import resume, train
from tunesmith.errors import TrainingError, TunesmithError

INPUT_ERROR, RUN_ERROR, INTERRUPTED = 2, 1, 130

# The base class of every error in how a command was written, whichever click this typer carries.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _show_version(asked: bool) -> None:
    if asked:
        print(f"tunesmith {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """The whole command line as one typer application."""
    # Plain help: rich would double the time that --help takes.
    app = typer.Typer(name="tunesmith", rich_markup_mode=None, add_completion=False, no_args_is_help=False)

    @app.callback(invoke_without_command=True)
    def _top(
        context: typer.Context,
        version: Annotated[
            bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
        ] = False,
    ) -> None:
        """Fine-tune a pretrained model on a small labelled table, and prove that it was worth it."""
        if context.invoked_subcommand is None:
            print(context.get_help())

    for command in (
        train,
        plan,
        rank,
        rate,
        search,
        preview,
        audit,
        resume,
        predict,
        evaluate,
        report,
        compare,
        demo,
        doctor,
    ):
        app.command()(command)
    return app


def run(arguments: list[str] | None = None) -> None:
    """Runs the command line, by default on the process's own arguments, and ends the process with its exit code.

    Exit codes: 0 done; 2 wrong input, every problem named on standard error; 1 a run that could not go on, an output that
    was closed (`| head`), or a bug; 130 and 143 stopped by Ctrl-C and SIGTERM.
    """
    # The interpreter looks through every object for cycles before it ends: 0.7 CPU seconds where torch is loaded.
    atexit.register(gc.freeze)
    try:
        words = sys.argv[1:] if arguments is None else arguments
        words = each_model_named(words) if words[:1] == ["rank"] else words
        code = build_app()(args=words, prog_name="tunesmith", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        code = RUN_ERROR
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except TunesmithError as error:
        if error.__cause__ is not None and os.environ.get("TUNESMITH_DEBUG") == "1":
            _say("".join(traceback.format_exception(error)).rstrip())
        _say(error_text(error.problems))
        code = RUN_ERROR if isinstance(error, TrainingError) else INPUT_ERROR
    except _UsageError as error:
        code = _explain_usage(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(
            error_text(
                (f"{where}cannot be read or written ({error.strerror or error}); check the path, space and rights",)
            )
        )
        code = INPUT_ERROR
    except Exception as error:
        _say(_bug_text(error))
        code = RUN_ERROR
    sys.exit(code if isinstance(code, int) else 0)


def error_text(problems: tuple[str, ...], width: int | None = None) -> str:
    """ "error:" and every problem, wrapped to the terminal; a list with dashes when there are several."""
    columns = min(width if width is not None else get_terminal_size((100, 24)).columns, 120)
    if len(problems) == 1:
        return _wrap(problems[0], "error: ", "  ", columns)
    return "\n".join(["error:", *(_wrap(problem, "- ", "  ", columns) for problem in problems)])


def _wrap(text: str, first: str, rest: str, width: int) -> str:
    # Only at spaces: a path or a command that is cut in two can no longer be copied.
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _explain_usage(error: Exception) -> int:
    usage = cast("typer.BadParameter", error)  # any error of usage has what is read of it here
    _say(error_text((usage.format_message(),)))
    if usage.ctx is not None:
        _say(f"see: {usage.ctx.command_path} --help")
    return INPUT_ERROR


def _bug_text(error: Exception) -> str:
    trace = "".join(traceback.format_exception(error))
    if os.environ.get("TUNESMITH_DEBUG") == "1":
        return trace.rstrip()
    name = type(error).__name__
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="tunesmith-bug-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(trace)
        place = f"the traceback is in {file.name}, and TUNESMITH_DEBUG=1 shows it here"
    except OSError:
        place = "TUNESMITH_DEBUG=1 shows the traceback"
    first = str(error).partition("\n")[0]
    return f"error: this is a bug in Tunesmith, please report it ({name}: {first}); {place}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
