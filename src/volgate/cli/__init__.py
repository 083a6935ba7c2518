"""The command line: one module a verb group, imported when its verb is used, so that every verb starts fast.

Errors are one line on standard error. Exit status: mount and umount as mount(8) (0, 1 usage, 2 system, 32 failed);
all others sysexits (64 usage, 69 unavailable, 70 bug, 73 cannot create, 75 try again, 77 not permitted, 78
configuration).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from volgate.errors import StorageException

_VERBS: Final = {
    "mount": "mount",
    "umount": "umount",
    "serve": "serve",
    "list": "listing",
    "status": "listing",
    "quota": "quota",
    "volume": "volume",
    "config": "config",
    "doctor": "doctor",
    "top": "top",
    "flush": "storage",
    "refresh": "storage",
    "gc": "storage",
    "quarantine": "quarantine",
    "snapshot": "snapshot",
    "copy": "copy",
    "sync": "copy",
    "task": "task",
    "events": "events",
    "control": "control",
}
_MOUNT_VERBS: Final = frozenset({"mount", "umount"})


class _Verbs(click.Group):
    """Loads a verb's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all verbs."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb's command."""
        module = _VERBS.get(cmd_name)
        if module is None:
            return None
        attribute = {"list": "list_"}.get(cmd_name, cmd_name)
        command = getattr(importlib.import_module(f"volgate.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click.Group; of a verb that there is not, the ones that were perhaps meant are named."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=_VERBS, ctx=ctx) from error


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="volgate")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and what is asked for.")
def command(quiet: bool) -> None:
    """Mount volumes as local directories, with an exact quota.

    \b
    volgate mount /srv/data /mnt/data --quota 10GiB -d
    volgate list
    volgate quota set /mnt/data 20GiB
    volgate umount /mnt/data
    """


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Never raises, never prints a traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    mounting = next((word for word in arguments if not word.startswith("-")), "") in _MOUNT_VERBS
    try:
        status = command.main(arguments, "volgate", standalone_mode=False)
    except click.exceptions.Abort:
        return _say("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:  # its message is the whole help
        error.show()
        return os.EX_USAGE
    except click.UsageError as error:
        verb = error.ctx.command_path.removeprefix("volgate").strip() if error.ctx is not None else ""
        hint = f" (see 'volgate {verb} --help')" if verb else " (see 'volgate --help')"
        return _say(error.format_message() + hint, 1 if mounting else 64)
    except click.ClickException as error:
        return _say(error.format_message(), 1 if mounting else error.exit_code)
    except StorageException as error:
        from volgate.cli.exit_status import exit_status

        return _say(str(error), 32 if mounting else exit_status(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last door: people get one line
        if os.environ.get("VOLGATE_TRACEBACK"):
            raise
        name = type(error).__name__
        return _say(f"a bug: {name}: {error}; run again with VOLGATE_TRACEBACK=1 and report it", 2 if mounting else 70)
    return status if isinstance(status, int) else 0


def _say(message: str, status: int) -> int:
    click.echo(f"volgate: {message}", err=True)
    return status
