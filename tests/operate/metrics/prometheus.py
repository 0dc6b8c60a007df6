"""Prometheus' two programs, and a server that scrapes one place."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from shutil import which
from typing import Any

from pagetide.machine.linux.packages import guests_folder
from tests.needed import lacking

STARTS_MAX_S = 60.0
RULES = Path(__file__).parents[3] / "deploy/prometheus/pagetide-rules.yml"


def find(name: str) -> str | None:
    """Where `prometheus` or `promtool` is, if anywhere."""
    place = guests_folder() / "bin" / name
    return str(place) if place.exists() else which(name)


def program(name: str) -> str:
    """`prometheus` or `promtool`. CI must have them; elsewhere a test without them is skipped, and says what to do."""
    found = find(name)
    if found is None:
        lacking(f"there is no {name} here: as root on Debian, make setup-guests")
    return found


class Prometheus:
    """A server that scrapes again and again, until it is closed."""

    def __init__(self, folder: Path, target: str, port: int, *, rules: Path = RULES, interval: str = "500ms") -> None:
        """Start it, with files in this folder."""
        config = folder / "prometheus.yml"
        config.write_text(
            json.dumps({
                "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
                "rule_files": [str(rules)],
                "scrape_configs": [{"job_name": "pagetide", "static_configs": [{"targets": [target]}]}],
            })
        )  # fmt: skip
        self._url = f"http://127.0.0.1:{port}/api/v1"
        self._log = (folder / "prometheus.log").open("wb")
        options = [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._process = subprocess.Popen([program("prometheus"), *options], stderr=self._log)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(STARTS_MAX_S)
        self._log.close()

    def ask(self, what: str, **query: str) -> Any:
        """Its answer's data."""
        with urllib.request.urlopen(
            f"{self._url}/{what}?{urllib.parse.urlencode(query)}", timeout=STARTS_MAX_S
        ) as answer:
            return json.load(answer)["data"]

    def value(self, expression: str) -> float | None:
        """What an expression is now; None if it is nothing."""
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def wait_for(self, expression: str, wanted: float) -> None:
        """Until an expression is this."""
        end_s = time.monotonic() + STARTS_MAX_S
        found: object = "no answer"
        while time.monotonic() < end_s and found != wanted:
            time.sleep(0.1)
            try:
                found = self.value(expression)
            except OSError as error:
                found = error
        assert found == wanted, f"{expression} is {found}"
