"""What a repository is made of: contents, commits, discussions."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal["model", "dataset"]
Gated = Literal["auto", "manual", False]

LARGE_FILE = 10 * 1024 * 1024
"""Bytes of a file that git takes without large file storage."""
_LARGE_KINDS = """
    .7z .arrow .avro .bin .bmp .bz2 .ckpt .flac .gif .gz .h5 .jpeg .jpg .joblib .mp3 .mp4 .msgpack .npy .npz
    .onnx .parquet .pickle .pkl .png .pt .pth .rar .safetensors .tar .tgz .tif .tiff .wav .webp .xz .zip .zst
"""
_LFS_SUFFIXES = frozenset(_LARGE_KINDS.split())


def is_lfs(path: str, size: int) -> bool:
    """Whether the Hub keeps the file in large file storage: by its name, or as it is large."""
    suffix = PurePosixPath(path).suffix.lower()
    return suffix in _LFS_SUFFIXES or (size > LARGE_FILE and suffix != ".md")


def git_id(kind: str, data: bytes) -> str:
    """The id that git gives an object."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


class Blob:
    """A file's content; hashes are worked out when they are asked for.

    Args:
        data: The content.
        lfs: Kept in large file storage; git then holds a pointer.
    """

    def __init__(self, data: bytes, *, lfs: bool) -> None:
        self.data = data
        self.lfs = lfs

    @cached_property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git holds in place of a large file."""
        head = "version https://git-lfs.github.com/spec/v1"
        return f"{head}\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def oid(self) -> str:
        """Git's id, of the pointer where there is one."""
        return git_id("blob", self.pointer if self.lfs else self.data)

    @property
    def etag(self) -> str:
        """The id by which clients cache the content."""
        return self.sha256 if self.lfs else self.oid


Tree = Mapping[str, Blob]


@dataclass(frozen=True)
class Commit:
    """One commit.

    Attributes:
        sha: 40 hexadecimal digits.
        message: Title and description, parted by an empty line.
        author: Name of the user.
        date: ISO 8601.
        parent: The commit before it, None for the first.
        tree: Contents by path.
    """

    sha: str
    message: str
    author: str
    date: str
    parent: str | None
    tree: Tree = field(repr=False, compare=False)  # the id stands for it

    @property
    def title(self) -> str:
        """First line of the message."""
        return self.message.partition("\n")[0]

    @property
    def description(self) -> str:
        """The message without its first line."""
        return self.message.partition("\n")[2].strip()

    @staticmethod
    def make(tree: Tree, *, repo: str, message: str, author: str, date: str, parent: str | None) -> "Commit":
        """A commit with the id that follows from everything it says."""
        listing = "\n".join(f"{blob.oid} {path}" for path, blob in sorted(tree.items()))
        said = "\0".join((repo, listing, message, author, date, parent or ""))
        return Commit(git_id("commit", said.encode("utf-8", "replace")), message, author, date, parent, tree)


@dataclass(frozen=True)
class PullRequest:
    """A pull request as it stands.

    Attributes:
        number: As in ``refs/pr/<number>`` and in its address.
        title: What its author called it.
        author: Name of the user.
        status: ``open``, ``draft``, ``merged`` or ``closed``.
        sha: Its last commit; for a draft without commits, the one that it starts from.
    """

    number: int
    title: str
    author: str
    status: str
    sha: str


@dataclass
class Discussion:
    """A discussion, or a pull request where ``base`` is a commit."""

    number: int
    title: str
    author: str
    status: str
    created: str
    base: str | None = None
    head: str | None = None
    merged_as: str | None = None
    events: list[dict[str, object]] = field(default_factory=list)
