"""Which error an absent tool becomes."""

from t2v_hub.errors import MissingDependencyError


def missing(error: ModuleNotFoundError, package: str, *, extra: str | None = None) -> ImportError:
    """What to raise where an adapter's tool cannot be imported.

    Args:
        error: What the import raised.
        package: The tool, as it is imported.
        extra: The extra of t2v_hub that installs it; named as the package where absent.

    Returns:
        A `MissingDependencyError` with the line that installs it, where the tool itself is absent; else the
        error as it came, for a broken installation is another matter.
    """
    if error.name != package:
        return error
    return MissingDependencyError(
        f"This needs {package}, which is not installed: pip install 't2v-hub[{extra or package}]'."
    )
