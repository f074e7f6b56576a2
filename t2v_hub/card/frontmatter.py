"""`FrontMatter`: where the metadata of a README stands."""

import re
from dataclasses import dataclass, replace

from t2v_hub.errors import CardSizeError, CardTextError

MAX_README = 10 * 2**20  # git on the Hub refuses a larger README
MAX_FRONT_MATTER = 1_000_000

# The Hub's own rule, on bytes: ``^(\s*---NEWLINE)(anything, lazily)(NEWLINE---[ \t]*(\r\n|\n|$))``.
_OPENING = re.compile(rb"(\s*)(---(?:\r\n|\r|\n))")
_CLOSING = re.compile(rb"(?<=[\r\n])---[ \t]*(?:\r\n|\n|$)")
_LIKE_OPENING = re.compile(rb"\s*---(?:\s|\Z)")
_LIKE_CLOSING = re.compile(r"(?:\A|[\r\n])---[ \t]*(?:[\r\n]|\Z)")
_COMMENTS = re.compile(rb"(?:\s+|<!--(?:[^-]|-(?!->))*+-->)*+")
_LIKE_METADATA = re.compile(
    rb"---[ \t]*[\r\n](?:[ \t]*(?:#[^\r\n]*)?[\r\n])*+[\"']?[A-Za-z_][\w-]*[\"']?[ \t]*:\s"
)
_LIKE_OPENING_TEXT = re.compile(r"---(?:\s|\Z)")
# Readers in Python and in JavaScript skip different ones of these.
_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u180e\u200b\ufeff"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class FrontMatter:
    """A README in five parts, whose sum is the README.

    Attributes:
        lead: Byte order mark and blank lines before the metadata.
        opening: The line ``---`` above the metadata; empty where the README has no metadata.
        text: The lines between, each with its newline; bytes that are not UTF-8 are lone surrogates.
        closing: The line ``---`` below the metadata; empty where the README has no metadata.
        body: Everything else.
    """

    lead: bytes
    opening: bytes
    text: str
    closing: bytes
    body: bytes

    @classmethod
    def find(cls, content: bytes) -> "FrontMatter":
        """The parts of a README, found as the Hub finds them.

        Raises:
            CardSizeError: The README is larger than 10 MiB, or its metadata than 1 MB.
            CardTextError: Readers may disagree on where the metadata stands.
        """
        if len(content) > MAX_README:
            raise CardSizeError(
                f"The README has {len(content):,} bytes; the Hub takes at most {MAX_README:,}. "
                "Shorten it first."
            )
        if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]:
            raise CardTextError("The README is not UTF-8, but perhaps UTF-16. Save it as UTF-8 first.")
        mark = _BOM if content.startswith(_BOM) else b""
        rest = content[len(mark) :]
        opening = _OPENING.match(rest)
        if opening is None:
            _require_no_metadata(rest)
            return cls(mark, b"", "", b"", rest)
        start = opening.end()
        # Only a newline *between* the two lines closes the Hub's block, so the search skips an empty one.
        closing = _CLOSING.search(rest, start + 1)
        if closing is None:
            closing = _CLOSING.match(rest, start)
        if closing is None:
            raise CardTextError(
                "The README opens with a line `---`, but the Hub finds none that closes its metadata. "
                "Add that line below the metadata, or remove the first one."
            )
        text = rest[start : closing.start()].decode("utf-8", "surrogateescape")
        if len(text) > MAX_FRONT_MATTER or closing.start() - start > MAX_FRONT_MATTER:
            raise CardSizeError(
                f"The README's metadata has {closing.start() - start:,} bytes; t2v_hub reads at most "
                f"{MAX_FRONT_MATTER:,}. Shorten it first."
            )
        if _LIKE_CLOSING.search(text):
            raise CardTextError(
                "Readers may disagree on where the README's metadata ends: it holds a second line `---`. "
                "Remove that line, or write `***` where a rule was meant."
            )
        return cls(mark + opening[1], opening[2], text, closing.group(), rest[closing.end() :])

    @property
    def newline(self) -> str:
        """The newline that most lines of the metadata end with, or of the body where there is no metadata."""
        if not self.opening:
            crlf = self.body.count(b"\r\n")
            return "\r\n" if crlf > self.body.count(b"\n") - crlf else "\n"
        whole = self.opening.decode() + self.text + self.closing.decode()
        crlf = whole.count("\r\n")
        counts = {"\r\n": crlf, "\n": whole.count("\n") - crlf, "\r": whole.count("\r") - crlf}
        most = max(counts.values())
        return next(newline for newline in ("\n", "\r\n", "\r") if counts[newline] == most)

    @property
    def content(self) -> bytes:
        """The README."""
        text = self.text.encode("utf-8", "surrogateescape")
        return b"".join((self.lead, self.opening, text, self.closing, self.body))

    def with_text(self, text: str) -> "FrontMatter":
        """The README with other metadata lines; the two lines ``---`` come and go with them."""
        line = f"---{self.newline}"
        if text:
            return replace(
                self,
                opening=self.opening or line.encode(),
                text=text,
                closing=self.closing or line.encode(),
            )
        mark = self.lead[: len(_BOM)] if self.lead.startswith(_BOM) else b""
        body = self.lead[len(mark) :] + self.body
        if _LIKE_OPENING.match(body):  # without our lines, the body's first rule would open metadata
            return replace(self, text=self.newline)
        return FrontMatter(mark, b"", "", b"", body)


def _require_no_metadata(rest: bytes) -> None:
    """Return when no reader takes the README's beginning for metadata."""
    if _LIKE_OPENING.match(rest):
        raise CardTextError(
            "The README opens with `---`, but not with a line that the Hub takes for the begin of metadata. "
            "Remove what follows `---` on that line, or write `***` where a rule was meant."
        )
    comments = _COMMENTS.match(rest)
    if comments is not None and _LIKE_METADATA.match(rest, comments.end()):
        raise CardTextError(
            "The README's metadata stands below a comment, where the Hub does not read it. "
            "Move it to the top of the README, above the comment."
        )
    if _LIKE_OPENING_TEXT.match(rest.decode("utf-8", "replace").lstrip(_SPACES)):
        raise CardTextError(
            "Unusual spaces stand before the README's first `---`, which not every reader skips. Remove them."
        )
