"""Inference: photos in; id masks, colour masks and overlays out."""
