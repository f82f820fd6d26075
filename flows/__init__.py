"""The order of the stages: a flow says what runs after what, and nothing of how.

Prefect reads these settings when it is first imported, so they are set here, before any flow imports it; whoever
set them already wins. Nothing is sent to third parties, and a slow machine may take its time to start the API.
"""

import os

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
