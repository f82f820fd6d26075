"""Where a stage's command runs."""
