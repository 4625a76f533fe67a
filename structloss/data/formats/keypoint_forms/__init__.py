"""Forms of keypoint files, one file each; see :mod:`~structloss.data.formats.keypoint_form`."""
