"""What networks that were made for ImageNet subtract from images in 0..1 and divide them by."""

__all__ = ["DEVIATION", "MEAN"]

MEAN = (0.485, 0.456, 0.406)
"""Of red, green and blue."""

DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviations of red, green and blue."""
