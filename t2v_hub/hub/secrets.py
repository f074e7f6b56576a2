"""Addresses, tokens, and errors that may hold one: what may be used, and what may be shown."""

import re
from urllib.parse import urlsplit

from t2v_hub.errors import SettingsError

_SECRET = re.compile(r"(?:hf|api)_[\w.-]{8,}|(?<=[Bb]earer )\S+")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_ADDRESS = re.compile(r"https?://[\x21-\x7e]+")


def check_endpoint(endpoint: str | None) -> None:
    """Return when the endpoint is None or an address.

    Raises:
        SettingsError: It is none, or holds a password, which would show in errors and reports.
    """
    if endpoint is None:
        return
    try:
        parts = urlsplit(endpoint) if isinstance(endpoint, str) else None
        usable = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and (parts.port is None or parts.port > 0) and not (parts.query or parts.fragment)
    except ValueError:
        usable = False
    if not usable or not _ADDRESS.fullmatch(str(endpoint)):
        raise SettingsError(
            f"endpoint must be an address such as https://huggingface.co, not {endpoint!r:.100}."
        )
    if parts is not None and (parts.username or parts.password):
        raise SettingsError("endpoint must not hold a user or password; pass the token as token=.")


def checked_token(token: str | bool | None) -> str | bool | None:
    """The token without what surrounds it in the file that it was read from.

    Raises:
        SettingsError: It cannot be one, and would end up in the errors of others.
    """
    if not isinstance(token, str):
        return token
    token = token.strip()  # a file that it was read from ends with a newline
    if not _TOKEN.fullmatch(token):
        raise SettingsError(
            "token must be of printable ASCII characters without spaces (it is not shown here)."
        )
    return token


def shown(error: BaseException, token: str | None) -> str:
    """What an error says, on one line, without the token and without what could steer a terminal."""
    text = str(error)
    if token:
        text = text.replace(token, "[token]")
    text = " ".join(_SECRET.sub("[token]", text).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text[:300].rstrip(".") or type(error).__name__
