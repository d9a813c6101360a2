"""Writes prometheusrule.yaml: the alert rules of deploy/prometheus as the Prometheus operator takes them.

kustomize cannot make a field of a file's structure; a test says when this has to run again.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
RULES = HERE.parents[2] / "prometheus" / "alerts.yaml"
HEAD = """\
# Made of deploy/prometheus/alerts.yaml by make_rule.py: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: hilgate
spec:
"""


def manifest() -> str:
    """The whole text of the manifest."""
    rules = RULES.read_text("utf-8")
    _, groups, rest = rules.partition("groups:\n")
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in (groups + rest).splitlines(True))


if __name__ == "__main__":
    (HERE / "prometheusrule.yaml").write_text(manifest(), "utf-8")
