"""Prefect's own pages, operated as a person does."""
