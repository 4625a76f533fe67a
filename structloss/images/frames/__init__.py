"""Frames for shape templates: folders that each show one person before one background, and pairs of their frames."""
