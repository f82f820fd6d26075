import os
import time

from deeplab.stage.inputs import input_digest


def test_an_input_is_read_again_only_when_it_has_changed(tmp_path):
    """A sweep asks for the digest of its first checkpoint again and again."""
    file = tmp_path / "model.ckpt"
    with file.open("wb") as output:
        output.truncate(200_000_000)
    seconds, digests = [], set()
    for _ in range(2):
        begun = time.perf_counter()
        digests.add(input_digest(file))
        seconds.append(time.perf_counter() - begun)
    assert len(digests) == 1 and seconds[1] < seconds[0] / 10

    stat = file.stat()
    with file.open("r+b") as output:
        output.write(b"another")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert input_digest(file) not in digests, "the time of change was set back"
