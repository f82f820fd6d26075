"""Export: a checkpoint as one frozen graph."""
