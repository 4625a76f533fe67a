"""Detectors of keypoints, one file each; see :mod:`~structloss.images.detector`."""
