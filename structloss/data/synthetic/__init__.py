"""Synthetic motion: bodies, curves of their joints over time, actions made of both, and clips of several people."""

from .generate import ACTIONS, check_people, generate_clips

__all__ = ["ACTIONS", "check_people", "generate_clips"]
