"""From which Hub a candidate is loaded, and with which token."""

from t2v_hub.catalog import Candidate
from t2v_hub.catalog.candidate import records_of


def hub_of(candidate: Candidate) -> str | None:
    """Address of the Hub whose card told of the candidate; None for what was added on this machine."""
    found = (record.endpoint for record in records_of(candidate.embeddings))
    return next((endpoint for endpoint in found if endpoint is not None), None)


def address(
    of_card: str | None, *, endpoint: str | None, token: str | bool | None
) -> tuple[str | None, str | bool | None]:
    """Endpoint and token to load with.

    The token that ``hf auth login`` left goes only to the Hub that it is for: a catalog, which others may
    have made, can name any address.

    Args:
        of_card: The Hub whose card told of the candidate.
        endpoint: The one that the caller named, which wins.
        token: The one that the caller gave.
    """
    if endpoint is None and of_card is not None:
        endpoint = of_card
        token = False if token is None and not same_hub(endpoint, None) else token
    return endpoint, token


def same_hub(one: str | None, other: str | None) -> bool:
    """Whether two addresses are one; None is that which a client takes by default."""
    from huggingface_hub import constants

    ours, theirs = ((endpoint or constants.ENDPOINT).rstrip("/") for endpoint in (one, other))
    return ours == theirs
