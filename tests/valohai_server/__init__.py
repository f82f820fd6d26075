"""A local server that speaks Valohai's API and really runs executions (see the README beside it)."""
