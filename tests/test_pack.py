"""A layer as one file: what goes in comes out, and what is not as it went in is refused."""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.edges.store import pack
from preheat.edges.store.pack import read_index, unpack, write_pack
from preheat.words.errors import PackError
from preheat.words.layer import LayerFacts
from preheat.words.pack import Frame, PackIndex

# What is unpacked gets no right that the umask denies.
pytestmark = pytest.mark.usefixtures("usual_umask")

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FACTS = LayerFacts(
    digest="a" * 64,
    package="sound",
    distributions=(("sound", "1.0"), ("wave", "2.0")),
    payload=10,
    disk=4096,
    files=1,
    has_pth=False,
    scripts=(("sound", "sound:main"),),
)

# What a name may hold: anything but a slash and NUL; the last one is no UTF-8.
NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.just("\n"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", "..")) | st.just("caf\udce9")
Tree = dict[str, Any]
FILES = st.tuples(st.binary(max_size=200), st.sampled_from([0o644, 0o755, 0o400, 0o600]))
TREES = st.recursive(
    st.dictionaries(NAMES, FILES, max_size=4),
    lambda inside: st.dictionaries(NAMES, FILES | inside, max_size=4),
    max_leaves=12,
)


def grow(place: Path, tree: Tree) -> None:
    """Makes a tree of files below a directory that exists."""
    for name, what in tree.items():
        if isinstance(what, dict):
            (place / name).mkdir()
            grow(place / name, what)
        else:
            content, mode = what
            (place / name).write_bytes(content)
            (place / name).chmod(mode)


def look(place: Path) -> dict[str, object]:
    """Everything below a directory: kind, mode, time, content."""
    found: dict[str, object] = {}
    for parent, directories, files in os.walk(place):
        for name in (*directories, *files):
            path = Path(parent, name)
            status = path.lstat()
            about: tuple[object, ...] = (oct(status.st_mode),)
            if path.is_symlink():
                about = ("link", os.readlink(path))
            elif path.is_file():
                about = (*about, path.read_bytes(), int(status.st_mtime))
            found[str(path.relative_to(place))] = about
    return found


def packed(layer: Path, file: Path) -> PackIndex:
    """A pack of that directory."""
    with file.open("wb") as handle:
        return write_pack(layer, FACTS, handle)


def forged(file: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    """A pack whose checksums hold, with what nobody should put into one."""
    raw = io.BytesIO()
    with tarfile.open(mode="w", fileobj=raw) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    data = zstd.compress(raw.getvalue())
    frame = Frame(
        offset=0,
        length=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        unpacked=len(raw.getvalue()),
        entries=len(members),
    )
    index = json.dumps({"facts": asdict(FACTS), "frames": [astuple(frame)]}).encode()
    digest = hashlib.sha256(index).digest()
    footer = pack._FOOTER.pack(digest, len(index), pack._MAGIC)
    header = pack._HEADER.pack(pack._SKIPPABLE, len(index) + len(footer))
    file.write_bytes(data + header + index + footer)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A member of a tar."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer of several frames, with links, and one file that is larger than memory may hold."""
    place = tmp_path / "layer"
    (place / "sound" / "data").mkdir(parents=True)
    noise = random.Random(4)  # noqa: S311  # no secret
    for number in range(6):
        (place / "sound" / f"part{number}.bin").write_bytes(noise.randbytes(pack._FRAME_BYTES // 2))
    (place / "sound" / "large.so").write_bytes(
        bytes(pack._IN_MEMORY_BYTES + 5) + noise.randbytes(99)
    )
    (place / "sound" / "empty.py").touch()
    (place / "libsound.so").symlink_to("sound/large.so")
    (place / "sound" / "data" / "up").symlink_to("../large.so")
    (place / "read-only").mkdir()
    (place / "read-only" / "kept.py").write_text("x = 1\n")
    (place / "read-only").chmod(0o555)
    return place


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_whatever_lies_in_a_layer_comes_out_of_its_pack_as_it_was(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "layer").mkdir()
        (root / "out").mkdir()
        grow(root / "layer", tree)
        written = packed(root / "layer", root / "pack")
        index = read_index(root / "pack")
        assert index == written
        assert index.facts == FACTS
        unpack(root / "pack", index, root / "out")
        assert look(root / "out") == look(root / "layer")
        assert index.entries == len(look(root / "layer"))


def test_large_files_links_and_read_only_directories_come_out_as_they_were(
    layer: Path, tmp_path: Path
) -> None:
    index = packed(layer, tmp_path / "pack")
    (tmp_path / "out").mkdir()
    told: list[int] = []
    unpack(tmp_path / "pack", index, tmp_path / "out", told.append)
    assert look(tmp_path / "out") == look(layer)
    assert len(index.frames) > 3
    assert told[-1] == sum(frame.unpacked for frame in index.frames)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the zstd program")
def test_a_pack_can_be_opened_by_hand(layer: Path, tmp_path: Path) -> None:
    packed(layer, tmp_path / "pack.tar.zst")
    (tmp_path / "out").mkdir()
    # Who is not root writes nothing into a directory that is read-only already.
    late = "" if os.geteuid() == 0 else "--delay-directory-restore"
    by_hand = f"zstd -dc pack.tar.zst | tar -xi {late} -C out"
    subprocess.run(["/bin/sh", "-c", by_hand], cwd=tmp_path, check=True)
    assert look(tmp_path / "out") == look(layer)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_byte_that_changed_is_never_unpacked(share: float, change: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "layer").mkdir()
        (root / "out").mkdir()
        (root / "layer" / "sound.py").write_text("LOUD = True\n" * 40)
        index = packed(root / "layer", root / "pack")
        whole = bytearray((root / "pack").read_bytes())
        # All but the header of the skippable frame, which only says that zstd skips it.
        end = sum(frame.length for frame in index.frames)
        places = [n for n in range(len(whole)) if not end <= n < end + pack._HEADER.size]
        whole[places[int(len(places) * share)]] ^= change
        (root / "pack").write_bytes(whole)
        with pytest.raises(PackError):
            unpack(root / "pack", read_index(root / "pack"), root / "out")
        assert not (root / "out" / "sound.py").exists()


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_pack_that_is_cut_short_is_refused(share: float) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "layer").mkdir()
        (root / "layer" / "sound.py").write_text("LOUD = True\n" * 40)
        packed(root / "layer", root / "pack")
        size = (root / "pack").stat().st_size
        os.truncate(root / "pack", int(size * share))
        with pytest.raises(PackError):
            read_index(root / "pack")


@pytest.mark.parametrize(
    "evil",
    [
        [(member("../escaped.py"), b"x")],
        [(member("/escaped.py"), b"x")],
        [(member("a/../../escaped.py"), b"x")],
        [(member("a", tarfile.SYMTYPE, "/etc"), b"")],
        [(member("a", tarfile.SYMTYPE, ".."), b"")],
        [
            (member("here", tarfile.SYMTYPE, "."), b""),
            (member("a", tarfile.SYMTYPE, "here/.."), b""),
        ],
        [(member("a", tarfile.SYMTYPE, "b"), b""), (member("a/escaped.py"), b"x")],
        [(member("a", tarfile.LNKTYPE, "/etc/passwd"), b"")],
        [(member("a", tarfile.FIFOTYPE), b"")],
        [(member("a", tarfile.CHRTYPE), b"")],
        [(member("a.py"), b"x"), (member("a.py"), b"y")],
        [(member("a"), b"x"), (member("a/b"), b"y")],
    ],
)
def test_what_would_leave_the_layer_or_is_no_file_of_one_is_refused(
    evil: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path
) -> None:
    forged(tmp_path / "pack", *evil)
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.raises(PackError):
        unpack(tmp_path / "pack", read_index(tmp_path / "pack"), out)
    assert not any(path.is_symlink() or path.name == "escaped.py" for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("destination", ["/etc/passwd", "../outside", "sound/../../outside"])
def test_a_layer_with_a_link_that_leads_out_is_not_packed(destination: str, tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer" / "link").symlink_to(destination)
    with pytest.raises(PackError, match="leads outside"):
        packed(tmp_path / "layer", tmp_path / "pack")
