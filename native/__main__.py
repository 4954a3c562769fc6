"""``python -m native <command>`` runs the commands behind the Makefile's targets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import typer

from headrace.errors import ConfigurationError, HeadraceError
from native import dotenv
from native.circumstances import prepare_environment
from native.dotenv import ENV_FILE, begin_anew
from native.stack import find_programs, load_stack
from native.supervision import Supervisor
from native.up import bring_up

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def env() -> None:
    """Create .env with new secrets if it does not exist."""
    dotenv.main()


@app.command()
def programs() -> None:
    """Find the servers' programs; download or build missing ones."""
    find_programs(print)


@app.command()
def up() -> None:
    """Start everything and wait until the first window is published."""
    bring_up()


@app.command()
def down() -> None:
    """Stop everything."""
    stack = load_stack(_existing_env())
    stopped = Supervisor(stack.folder).shut_down()
    print("stopped" if stopped else "nothing was running")


@app.command("reload-logins")
def reload_logins() -> None:
    """Make mosquitto reload its logins and access rules."""
    stack = load_stack(_existing_env())
    Supervisor(stack.folder).hang_up("mosquitto")
    print("mosquitto reloads its logins")


@app.command()
def logs() -> None:
    """Follow the logs of all processes."""
    stack = load_stack(_existing_env())
    files = sorted(str(path) for path in stack.log_folder.glob("*.log"))
    if not files:
        print(f"no logs in {stack.log_folder} yet: `make up` starts the stack")
        return
    try:
        subprocess.run(["tail", "-n", "5", "-F", *files], check=False)
    except KeyboardInterrupt:
        return


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def airflow(context: typer.Context) -> None:
    """Run an Airflow command in the stack's environment, such as `airflow dags list`."""
    stack = load_stack(_existing_env())
    program = str(Path(sys.executable).parent / "airflow")
    environment = {**os.environ, **stack.airflow_environment}
    os.execve(program, [program, *context.args], environment)  # noqa: S606


@app.command()
def reset(
    yes: bool = typer.Option(False, "--yes", help="Do not ask for confirmation."),
) -> None:
    """Stop everything and delete all data, after confirmation. Keeps .env."""
    stack = load_stack(_existing_env())
    if not yes:
        typer.confirm(
            f"This deletes {stack.folder} with all readings, rows and runs. Continue?", abort=True
        )
    Supervisor(stack.folder).shut_down()
    shutil.rmtree(stack.folder)
    begin_anew(ENV_FILE)
    print(f"deleted {stack.folder}; `make up` creates a new installation")


def _existing_env() -> Path:
    if not ENV_FILE.exists():
        msg = f"there is no {ENV_FILE} here: `make up` writes one and starts the stack"
        raise ConfigurationError(msg)
    return ENV_FILE


def main() -> None:
    """Run a command. An expected error prints one sentence and exits with code 1."""
    prepare_environment()
    try:
        app()
    except HeadraceError as exc:
        print(f"headrace: {exc}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
