"""Training: losses, schedules, optimisers, the loop, and what it leaves."""
