"""Settings without effect: what a run does not read, and why.

For the command line, which warns of such flags, and for control runs, whose
rows belong to one recipe whatever these settings are. The rules are defined
with the settings and with the methods, and collected here.
"""

from meta_pseudo_labels.learners.settings import rules_of, unread_rules
from meta_pseudo_labels.run.config.core import RUN_GROUPS


def rules_for(method):
    """`Unread` rules for a method's runs; of several, the first one counts."""
    return unread_rules(method) + rules_of(RUN_GROUPS)


def unread_settings(settings):
    """The settings that nothing in a run depends on.

    Args:
      settings: all fields of a `Config` by name, as `dataclasses.asdict` gives
        them; other names may be among them.

    Returns:
      A dict from the name of each such setting to the reason, a clause.
    """
    rules = [r for r in rules_for(settings["method"]) if r.when(settings)]
    return {
        name: rule.why.format_map(settings)
        for rule in reversed(rules)  # So that the first of them counts.
        for name in settings
        if rule.covers(name)
    }
