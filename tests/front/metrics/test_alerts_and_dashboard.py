"""deploy/'s alerts and dashboard, against what a real front tells, and in a real Prometheus."""

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.front.test_metrics import METRICS_PORT, measured
from tests.support.server import PORT, Server
from tests.support.waiting import until

DEPLOY = Path(__file__).parents[3] / "deploy"
ALERTS = DEPLOY / "prometheus-alerts.yaml"
DASHBOARD = DEPLOY / "grafana-dashboard.json"
PROMETHEUS_PORT = 9090
# What Prometheus itself adds to every scrape.
ITS_OWN = {"up"}
NAME = re.compile(r"\b(?:jobworker|process)_[a-z_]+\b|\bup\b")
MATCHED = re.compile(r"\b((?:jobworker|process)_[a-z_]+|up)\{([^}]*)\}")
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="no prometheus, promtool"
)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def panels() -> dict[str, list[str]]:
    """The expressions of each panel, by its title; the variables stand for everything."""
    told = json.loads(DASHBOARD.read_text())["panels"]
    words = {"$instance": ".*", "$job": ".*", "$__rate_interval": "1m"}
    found: dict[str, list[str]] = {}
    for panel in told:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in words.items():
                expression = expression.replace(variable, value)
            found.setdefault(f"{panel['id']} {panel['title']}", []).append(expression)
    return found


def expressions() -> list[str]:
    return [rule["expr"] for rule in rules()] + [one for some in panels().values() for one in some]


def some_calls(server: Server) -> None:
    job = server.ask("alice", "start", "--", "true")
    server.end("alice", job)
    assert server.run("bob", "status", job).returncode != 0
    # A connection that is no TLS is refused.
    with closing(socket.create_connection((server.host, PORT), 60)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while connection.recv(1024):
            pass


def scrape(host: str) -> dict[str, set[str]]:
    """The names that are told, each with the names of its labels."""
    with urllib.request.urlopen(f"http://{host}:{METRICS_PORT}/metrics", timeout=60) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    told: dict[str, set[str]] = {}
    for family in families:
        # One that nothing has happened to yet has no samples, but its name.
        told.setdefault(family.name + ("_total" if family.type == "counter" else ""), set())
        for sample in family.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    return told


def test_every_metric_and_label_that_is_asked_for_is_told(tmp_path: Path) -> None:
    with measured(tmp_path, "audit: {directory: audit}\n") as (server, host):
        some_calls(server)
        until(lambda: "reason" in scrape(host)["jobworker_connections_refused_total"])
        told = scrape(host)
    for expression in expressions():
        names = set(NAME.findall(expression))
        assert names, expression
        assert names - ITS_OWN <= told.keys(), expression
        for name, matchers in MATCHED.findall(expression):
            labels = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers))
            # Prometheus adds these.
            labels -= {"instance", "job"}
            assert labels <= told.get(name, set()), (expression, name)


def test_alerts_say_what_they_are_about() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) >= 10
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule
        assert rule["annotations"]["summary"], rule


@needs_prometheus
def test_alerts_fire_when_something_is_wrong_and_only_then(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(Path(__file__).parent / "alerts.test.yaml", tmp_path)
    for words in (["check", "rules", ALERTS.name], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run(
            ["promtool", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def prometheus(directory: Path, host: str) -> Iterator[str]:
    """One that reads the front each second, and where it answers."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "jobworker",
                "static_configs": [{"targets": [f"{host}:{METRICS_PORT}"]}],
            }
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"{host}:{PROMETHEUS_PORT}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}/api/v1"
    finally:
        process.kill()
        process.wait()


def asked(address: str, **words: str) -> Any:
    """What Prometheus answers; None while it does not."""
    path = words.pop("path", "query")
    query = urllib.parse.urlencode(words)
    try:
        with urllib.request.urlopen(f"{address}/{path}?{query}", timeout=60) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


@needs_prometheus
def test_a_real_prometheus_shows_every_panel(tmp_path: Path) -> None:
    settings = "audit: {directory: audit}\n"
    with measured(tmp_path, settings) as (server, host), prometheus(tmp_path, host) as address:
        until(lambda: bool((asked(address, query="up == 1") or {}).get("result")))
        some_calls(server)
        # It takes two scrapes for a rate.
        many = "min(count_over_time(jobworker_connections[1m])) > 3"
        until(lambda: bool(asked(address, query=many)["result"]))
        for some in panels().values():
            for expression in some:
                until(partial(shows, address, expression))
        every = {rule["alert"] for rule in rules()}
        until(lambda: evaluated(address) == every)
        # The certificates of tests end within a day or two.
        until(lambda: firing(address) == {"JobworkerTlsExpires", "JobworkerTlsExpiresNow"})


def shows(address: str, expression: str) -> bool:
    """Whether something comes of it."""
    return bool(asked(address, query=expression)["result"])


def evaluated(address: str) -> set[str]:
    """The alerts that are well."""
    (group,) = asked(address, path="rules")["groups"]
    return {rule["name"] for rule in group["rules"] if rule["health"] == "ok"}


def firing(address: str) -> set[str]:
    return {one["labels"]["alertname"] for one in asked(address, path="alerts")["alerts"]}
