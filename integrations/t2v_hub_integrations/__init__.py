"""Adapters between t2v_hub and the tools that people train and search with, one module each.

Importing this package imports none of them. A module whose tool is not installed raises
`t2v_hub.errors.MissingDependencyError` when it is imported, with the line that installs it.
"""

from t2v_hub_integrations.candidates import Candidates

__all__ = ["Candidates"]
