"""Finds the servers' programs on this machine and downloads or builds missing ones.

Large downloads and builds are cached outside the checkout, by version. The system is not
changed: Debian's packages are unpacked into the cache and not installed, so no service starts.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headrace.errors import ConfigurationError

__all__ = [
    "Program",
    "Progress",
    "cache_dir",
    "digest",
    "exclusively",
    "find_influxd",
    "find_kafka",
    "find_maildev",
    "find_mosquitto",
    "find_postgres",
    "libraries",
    "need",
    "pinned_version",
    "run_step",
    "unpack_debian",
]

HERE = Path(__file__).resolve().parent

POSTGRES_MAJOR = 15

#: Receives a short description of each step.
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Program:
    """A server's program.

    Parameters
    ----------
    path
        The executable, or the folder of executables (PostgreSQL) or jars (Kafka).
    environment
        Environment variables that it needs.
    """

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def cache_dir() -> Path:
    """Return the folder of downloaded and built programs: one per machine, shared by checkouts.

    For root it is a folder that the servers' unprivileged user can read.
    """
    if os.geteuid() == 0:
        return Path("/var/cache/headrace")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "headrace"


@contextmanager
def exclusively() -> Iterator[None]:
    """Let one process at a time download programs; others wait and then find them."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_step(
    command: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a set-up command and write its output to a log.

    Raises
    ------
    ConfigurationError
        If it fails. The message names the log and quotes its end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        output.write(f"$ {' '.join(map(str, command))}\n")
        output.flush()
        done = subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()[-5:]
        msg = f"{command[0]} failed ({done.returncode}), see {log}:\n  " + "\n  ".join(lines)
        raise ConfigurationError(msg)


def find_kafka(progress: Progress) -> Program:
    """Return the folder of Kafka's jars, from ``KAFKA_HOME`` or Maven Central."""
    need("java", "a Java 17 runtime", "apt-get install openjdk-17-jre-headless")
    home = os.environ.get("KAFKA_HOME")
    if home:
        libs = Path(home) / "libs"
        if not list(libs.glob("kafka_2*.jar")):
            msg = f"KAFKA_HOME is {home}, but {libs} holds no Kafka. Unset it to download Kafka"
            raise ConfigurationError(msg)
        return Program(libs)
    pom = HERE / "kafka" / "pom.xml"
    version = pinned_version(pom, r"<version>([\d.]+)</version>")
    libs = cache_dir() / f"kafka-{version}-{digest([pom])}"
    if not libs.exists():
        progress(f"getting Apache Kafka {version}")
        _need_maven(progress)
        partial = _fresh(libs.with_name(f"{libs.name}.partial"))
        command: list[str | Path] = [
            "mvn",
            "--quiet",
            "--batch-mode",
            "--file",
            pom,
            "dependency:copy-dependencies",
            f"-DoutputDirectory={partial}",
        ]
        run_step(command, cache_dir() / "log" / "kafka.log")
        partial.rename(libs)
    return Program(libs)


def find_influxd(progress: Progress) -> Program:
    """Return ``influxd`` 2.7 or a later 2.x, from PATH or built from its Go module."""
    found = shutil.which("influxd")
    if found and _influxd_fits(found):
        return Program(Path(found))
    sources = [HERE / "influxd" / name for name in ("main.go", "go.mod", "go.sum", "build.sh")]
    version = pinned_version(HERE / "influxd" / "go.mod", r"influxdb/v2 v([\d.]+)")
    path = cache_dir() / f"influxd-{version}-{digest(sources)}"
    if not path.exists():
        progress(f"building InfluxDB {version}, which takes about five minutes, once")
        need("go", "Go 1.23 or newer", "apt-get install golang")
        need("cargo", "Rust", "apt-get install cargo")
        need("cc", "a C compiler", "apt-get install build-essential")
        run_step([HERE / "influxd" / "build.sh", path], cache_dir() / "log" / "influxd.log")
    return Program(path)


def find_mosquitto(progress: Progress) -> Program:
    """Return ``mosquitto`` 2, installed or unpacked from Debian's package."""
    found = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found:
        return Program(Path(found))
    root = unpack_debian("mosquitto", "usr/sbin/mosquitto", progress)
    return Program(root / "usr/sbin/mosquitto", libraries(root))


def find_postgres(progress: Progress) -> Program:
    """Return the folder of PostgreSQL's executables, installed or unpacked."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
    )
    if installed:
        return Program(installed[-1].parent)
    name = f"postgresql-{POSTGRES_MAJOR}"
    bin_folder = f"usr/lib/postgresql/{POSTGRES_MAJOR}/bin"
    root = unpack_debian(name, f"{bin_folder}/initdb", progress)
    return Program(root / bin_folder, libraries(root))


def find_maildev(progress: Progress) -> Program:
    """Return ``maildev``, the mailbox, from npm."""
    need("node", "Node.js 20", "see nodejs.org")
    lock = HERE / "maildev" / "package-lock.json"
    folder = cache_dir() / f"maildev-{digest([lock])}"
    if not folder.exists():
        progress("getting the mailbox (maildev)")
        partial = _fresh(folder.with_name(f"{folder.name}.partial"))
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / "maildev" / name, partial / name)
        run_step(
            ["npm", "ci", "--omit=dev", "--no-audit", "--no-fund"],
            cache_dir() / "log" / "maildev.log",
            cwd=partial,
        )
        partial.rename(folder)
    return Program(folder / "node_modules" / "maildev" / "bin" / "maildev")


def need(command: str, what: str, how: str) -> None:
    """Raise an error if a required command is missing.

    Raises
    ------
    ConfigurationError
        If it is not on PATH. The message has its purpose and how to install it.
    """
    if shutil.which(command) is None:
        msg = f"{what} requires `{command}`, which is not on PATH: {how}"
        raise ConfigurationError(msg)


def _need_maven(progress: Progress) -> None:
    if shutil.which("mvn") is None:
        progress("installing Maven")
        _apt(["update"])
        _apt(["install", "--yes", "--no-install-recommends", "maven"])


def _influxd_fits(path: str) -> bool:
    output = subprocess.run(
        [path, "version"], capture_output=True, text=True, check=False, timeout=30
    ).stdout
    match = re.search(r"InfluxDB v?(\d+)\.(\d+)", output)
    return match is not None and (int(match[1]), int(match[2])) >= (2, 7) and match[1] == "2"


def unpack_debian(package: str, wanted: str, progress: Progress) -> Path:
    """Unpack a Debian package and its missing dependencies into the cache."""
    root = cache_dir() / f"debian-{package}"
    if (root / wanted).exists():
        return root
    progress(f"getting {package} from Debian's packages")
    archives = _fresh(cache_dir() / f"debian-{package}.archives")
    (archives / "partial").mkdir()
    log = cache_dir() / "log" / f"{package}.log"
    download: list[str | Path] = [
        "apt-get",
        "--yes",
        "--no-install-recommends",
        "--download-only",
        # apt only downloads, so it needs no system lock.
        "-o",
        "Debug::NoLocking=1",
        "-o",
        f"Dir::Cache={cache_dir() / 'apt'}",
        "-o",
        f"Dir::Cache::archives={archives}",
        "install",
        package,
    ]
    if os.geteuid() == 0:
        # As root, apt switches to a user who can't write here.
        download[1:1] = ["-o", "APT::Sandbox::User=root"]
    (cache_dir() / "apt").mkdir(exist_ok=True)
    try:
        run_step(download, log)
    except ConfigurationError:
        # The package lists may be missing or outdated.
        _apt(["update"])
        run_step(download, log)
    partial = _fresh(root.with_name(f"{root.name}.partial"))
    for archive in sorted(archives.glob("*.deb")):
        run_step(["dpkg-deb", "--extract", archive, partial], log)
    if not (partial / wanted).exists():
        msg = f"Debian's package {package} holds no {wanted}, see {log}"
        raise ConfigurationError(msg)
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)
    shutil.rmtree(archives)
    return root


def _apt(arguments: list[str]) -> None:
    command = ["apt-get", *arguments]
    if os.geteuid() != 0:
        need("sudo", "root, or sudo,", f"run `{' '.join(command)}` as root")
        command = ["sudo", *command]
    run_step(
        command,
        cache_dir() / "log" / f"apt-{arguments[0]}.log",
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )


def libraries(root: Path) -> dict[str, str]:
    """Return the environment in which unpacked programs find their libraries."""
    found = (root / "usr/lib").glob("*-linux-gnu*/**/*.so*")
    return {"LD_LIBRARY_PATH": ":".join(sorted({str(path.parent) for path in found}))}


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def pinned_version(file: Path, pattern: str) -> str:
    """Return the version that a build file pins, the only place that has it."""
    match = re.search(pattern, file.read_text())
    if match is None:
        msg = f"{file} does not say which version it builds"
        raise ConfigurationError(msg)
    return match[1]


def digest(files: Sequence[Path]) -> str:
    """Return a hash of files, so that a change causes a rebuild."""
    content = hashlib.sha256()
    for path in files:
        content.update(path.read_bytes())
    return content.hexdigest()[:12]
