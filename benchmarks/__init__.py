"""Measurements of the product against tools that do the same work, run by hand."""
