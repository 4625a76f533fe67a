"""Synthetic motion: bodies, curves of their joints over time, actions made of both, and clips of several people."""

from .generate import ACTIONS, generate_clips

__all__ = ["ACTIONS", "generate_clips"]
