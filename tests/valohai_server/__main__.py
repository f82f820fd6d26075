"""``python -m tests.valohai_server --port PORT --data DIR``: serve until SIGTERM."""

import argparse
import socket
from pathlib import Path

import uvicorn

from tests.valohai_server.app import App
from tests.valohai_server.runner import Runner
from tests.valohai_server.server import Server
from tests.valohai_server.settings import Settings


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.valohai_server", description="A local Valohai.")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--data", type=Path, required=True, help="folder of all state; made when it is not there")
    parser.add_argument("--workers", type=int, default=2, help="executions that run at once")
    parser.add_argument(
        "--azure", action="append", default=[], metavar="ACCOUNT=URL", help="blob endpoint or connection string"
    )
    parser.add_argument("--git", help="repository that `project fetch` reads")
    parser.add_argument("--commands", choices=("script", "stepwise"), default="script")
    parser.add_argument("--paths", choices=("auto", "namespace", "rewrite"), default="auto")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds from SIGTERM to SIGKILL at a stop")
    parser.add_argument("--running-log", type=int, default=0, help="lines readable of a running execution, 0 = all")
    parser.add_argument("--max-page", type=int, default=0, help="rows of the longest page, 0 = any")
    parser.add_argument("--token", help="default: a random one, kept in the data folder")
    parser.add_argument("--username", default="vh")
    parser.add_argument("--password", default="valohai")
    parser.add_argument("--project", default="deeplab", help="name of the project made at the first start")
    return parser.parse_args()


def main() -> None:
    arguments = vars(_arguments())
    port = arguments.pop("port")
    arguments["azure"] = dict(one.split("=", 1) for one in arguments["azure"])
    arguments["data"].mkdir(parents=True, exist_ok=True)
    server = Server(Settings(**arguments))
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(128)
    server.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    runner = Runner(server)
    runner.start()
    print(f"VALOHAI_HOST={server.address}/")
    print(f"VALOHAI_TOKEN={server.user['token']}")
    print(f"VALOHAI_PROJECT={server.first_project['id']}", flush=True)
    config = uvicorn.Config(App(server), log_level="warning", timeout_graceful_shutdown=3, access_log=False)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        runner.close()
        server.store.close()


if __name__ == "__main__":
    main()
