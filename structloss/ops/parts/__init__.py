"""The second fused operator: images of the parts of a shape template. :mod:`structloss.functional.parts` calls it."""
