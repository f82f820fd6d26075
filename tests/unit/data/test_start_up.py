import subprocess
import sys

import pytest


@pytest.mark.parametrize("stage", ["sample", "fetch", "convert"])
def test_a_stage_without_a_network_starts_without_tensorflow(stage):
    program = f"import sys, deeplab.cli, deeplab.data.{stage}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
