"""Backbones in plain eager PyTorch, as their papers print them."""
