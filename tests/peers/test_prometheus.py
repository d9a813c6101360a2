"""Metrics and alert rules by Prometheus's own tool."""

import re
from pathlib import Path

import pytest
import yaml
from exposed import exposed
from prom import ROOT, Need, promtool

RULES = ROOT / "deploy" / "prometheus"


async def test_what_an_agent_exposes_is_clean(need: Need, tmp_path: Path) -> None:
    text = await exposed(tmp_path)
    # It says nothing of what is well.
    assert promtool(need, "check", "metrics", told=text.encode()) == ""


def test_promtool_would_say_what_is_not_clean(need: Need) -> None:
    with pytest.raises(AssertionError, match="counter metrics should have"):
        promtool(need, "check", "metrics", told=b"# HELP a_b Text.\n# TYPE a_b counter\na_b 1\n")


def test_rules_and_the_scrape_configuration_are_well_formed(need: Need) -> None:
    assert "SUCCESS" in promtool(need, "check", "rules", "alerts.yaml", folder=RULES)
    assert "SUCCESS" in promtool(need, "check", "config", "--syntax-only", "prometheus.yaml", folder=RULES)


def test_each_alert_fires_when_it_should_and_only_then(need: Need) -> None:
    assert "SUCCESS" in promtool(need, "test", "rules", "alerts_test.yaml", folder=RULES)


@pytest.mark.parametrize("broken", ["== 2", ">= 0"])
def test_a_rule_that_is_broken_would_be_found(need: Need, tmp_path: Path, broken: str) -> None:
    rules = (RULES / "alerts.yaml").read_text()
    (tmp_path / "alerts.yaml").write_text(
        rules.replace("hilgate_device_up == 0", f"hilgate_device_up {broken}")
    )
    tests = yaml.safe_load((RULES / "alerts_test.yaml").read_text())
    tests["tests"] = [case for case in tests["tests"] if case["name"] == "HilgateDeviceOffline"]
    (tmp_path / "alerts_test.yaml").write_text(yaml.safe_dump(tests))
    with pytest.raises(AssertionError, match="HilgateDeviceOffline"):
        promtool(need, "test", "rules", "alerts_test.yaml", folder=tmp_path)


def test_each_alert_is_tested_and_says_what_to_do() -> None:
    groups = yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    cases = {case["name"]: case for case in yaml.safe_load((RULES / "alerts_test.yaml").read_text())["tests"]}
    assert cases.keys() == rules.keys()
    for name, case in cases.items():
        assert {one["alertname"] for one in case["alert_rule_test"]} == {name}
        assert any(one["exp_alerts"] for one in case["alert_rule_test"])
        # Another bench is close to it, and has no alert.
        assert any("rig-08" in series["series"] for series in case["input_series"])
    for rule in rules.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert len(rule["annotations"]["description"]) > 60


async def test_rules_ask_only_for_metrics_that_there_are(tmp_path: Path) -> None:
    text = await exposed(tmp_path)
    known = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) | {"up"}
    asked = set(re.findall(r"\b(?:hilgate|process)_\w+\b", (RULES / "alerts.yaml").read_text()))
    assert asked <= known, asked - known
