"""The code version of every stage: raised when the stage's products change for equal parameters and inputs.

It takes part in the KEY under which a flow stores a stage's output, and stands in the manifest.
"""

CODE_VERSIONS: dict[str, int] = {
    "sample": 1,
    "fetch": 1,
    "convert": 3,
    "train": 1,
    "archive": 1,
    "evaluate": 1,
    "export": 1,
    "predict": 1,
}
