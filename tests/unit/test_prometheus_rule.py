"""The alert rules that Kubernetes gets are those that promtool tests."""

import runpy
from pathlib import Path

import yaml

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "components" / "monitoring"


def test_the_rule_is_made_of_the_alerts() -> None:
    made = runpy.run_path(str(MONITORING / "make_rule.py"))
    text = (MONITORING / "prometheusrule.yaml").read_text("utf-8")
    assert text == made["manifest"](), f"type: .venv/bin/python {MONITORING / 'make_rule.py'}"
    assert yaml.safe_load(text)["spec"] == yaml.safe_load(made["RULES"].read_text("utf-8"))
