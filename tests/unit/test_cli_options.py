"""The command line and the settings are in step."""

import inspect

from agent.cli import options, run, send, watch
from agent.settings import FILE_ONLY, Settings


def test_run_has_an_option_for_every_setting() -> None:
    parameters = set(inspect.signature(run.run).parameters) - {"ctx", "profile", "settings"}
    assert parameters == set(Settings.model_fields) - set(FILE_ONLY)


def test_clients_take_what_they_pass_on() -> None:
    for command in (send.send, watch.watch):
        assert set(options.BROKER_FIELDS) <= set(inspect.signature(command).parameters)
        assert set(options.BROKER_FIELDS) <= set(Settings.model_fields)
