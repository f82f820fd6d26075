"""Evaluation: confusion matrix, IoU per class, results.json and a sheet of examples."""
