"""Operators: backends, their registration with torch, and autograd. Users call `structloss.functional`."""
