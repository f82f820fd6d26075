"""Valohai as a place where stages run: the client, the code that is handed over, and one execution a stage.

``connection`` says where and as whom, ``client`` speaks the API, ``package`` hands the code over, ``step``,
``pipelines`` and ``sweeps`` check a request against ``valohai.yaml``, ``execution`` submits once and stops,
``following`` and ``groups`` follow, ``events`` keeps the log, ``outputs`` brings files home. Only ``block`` knows
Prefect.
"""
