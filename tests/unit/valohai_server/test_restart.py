def test_finished_executions_remain_and_running_ones_go_on(own):
    finished = own.finish(own.say("echo '{\"loss\": 1}'; printf x > $VH_OUTPUTS_DIR/file"))
    script = "for i in $(seq 40); do echo line $i; sleep 0.05; done; printf y > $VH_OUTPUTS_DIR/late; exit 0"
    runs, fails = own.say(script), own.say("sleep 1.5; exit 4")
    own.until(runs, lambda _: "line 3" in own.messages(runs))
    own.until(fails, lambda current: current["status"] == "started")
    waits = own.say("echo later")
    own.server.restart()
    assert own.read(finished)["cumulative_metadata"] == {"loss": 1}
    assert own.content(own.outputs(finished)["file"]) == b"x"
    assert own.finish(runs)["status"] == "complete"
    assert own.messages(runs, "stdout") == [f"line {number}" for number in range(1, 41)]
    assert own.content(own.outputs(runs)["late"]) == b"y"
    assert own.finish(fails)["status"] == "error"
    assert own.finish(waits)["status"] == "complete"
    assert own.say("true")["counter"] == waits["counter"] + 1


def test_what_ends_while_no_server_runs(own):
    execution = own.say("sleep 0.5; echo ended")
    own.until(execution, lambda current: "Running command" in " ".join(own.messages(execution)))
    own.server.kill()
    import time

    time.sleep(1)
    own.server.start()
    assert own.finish(execution)["status"] == "complete"
    assert own.messages(execution, "stdout") == ["ended"]


def test_a_lost_machine(own):
    execution = own.say(
        "printf a > $VH_OUTPUTS_DIR/a; chmod 444 $VH_OUTPUTS_DIR/a; printf b > $VH_OUTPUTS_DIR/b; sleep 60"
    )
    own.until(execution, lambda current: current["outputs"])
    own.server.lose(execution["id"])
    assert own.finish(execution)["status"] == "crashed"
    assert list(own.outputs(execution)) == ["a"]
