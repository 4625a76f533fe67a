"""Formats of people in images, one file each; see :mod:`structloss.images.source`."""
