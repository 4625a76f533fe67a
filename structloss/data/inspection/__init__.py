"""What a data set holds and what looks wrong with it: bodies, views, protocol, and the report of all three."""

from .report import inspect_data, inspect_loaded

__all__ = ["inspect_data", "inspect_loaded"]
