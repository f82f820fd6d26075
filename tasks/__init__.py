"""One file a stage: each wraps a stage's command as a Prefect task that reuses, runs and reports it.

``store`` keeps what stages made, ``stage`` runs one, ``runner`` knows where a command runs. TensorFlow is never
imported here: a stage is a process of its own.
"""
