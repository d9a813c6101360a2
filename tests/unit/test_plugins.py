from importlib.metadata import EntryPoint

import pytest

from agent.plugins import PluginError, Plugins, protocols, simulators


def test_the_built_in_ones_are_found_by_their_words() -> None:
    assert protocols()["modbus"].name == "modbus"
    assert "modbus" in simulators()
    assert "modbuss" not in protocols()


def test_only_what_is_asked_for_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        EntryPoint("text", "string:ascii_lowercase", "g"),
        EntryPoint("absent", "no_such_module:THING", "g"),
        EntryPoint("empty", "string:no_such_thing", "g"),
    ]
    monkeypatch.setattr("agent.plugins.entry_points", lambda group: found)
    plugins = Plugins[str]("g")
    assert (list(plugins), len(plugins)) == (["absent", "empty", "text"], 3)
    assert plugins["text"].startswith("abc")
    with pytest.raises(PluginError, match="absent is installed but cannot be used: No module named"):
        plugins["absent"]
    with pytest.raises(PluginError, match="empty is installed but cannot be used"):
        plugins["empty"]
    with pytest.raises(KeyError):
        plugins["other"]
