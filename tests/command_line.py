"""Command lines, parsed as main.py does."""

import pytest
from absl import flags

from meta_pseudo_labels.run.config.flags import config_from_flags, define_flags
from meta_pseudo_labels.utils.settings import ConfigError


def defined(arguments=()):
    """Flags of their own, those of plug-ins too, not yet parsed."""
    values = flags.FlagValues()
    define_flags(values, arguments=arguments)
    return values


def parse(*arguments):
    """The `Config` of a command line."""
    values = defined()
    values(["main.py", *arguments])
    return config_from_flags(values)


def refusal(*arguments):
    """What the user is told about a command line that is refused."""
    with pytest.raises(ConfigError) as caught:
        parse(*arguments)
    return str(caught.value)


def refusal_of(main, *arguments):
    """What main() tells the user as it gives up: one line."""
    with pytest.raises(SystemExit) as caught:
        main(*arguments)
    message = caught.value.code
    assert isinstance(message, str)  # Python prints it and exits with 1.
    assert message.startswith("Error: ")
    assert "\n" not in message
    return message
