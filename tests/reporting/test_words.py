"""The page of reports in Russian: what the catalogue of reports says in English is the key."""

import tomllib

from lostwax.reporting.pages import WEB
from lostwax.reporting.reports import REPORTS

SAID = {
    text
    for report in REPORTS.values()
    for text in (report.title, report.meaning, *report.groups, *(column.title for column in report.columns))
    if text
}


def test_every_report_column_and_group_has_a_name_in_russian() -> None:
    assert len(SAID) > 50
    assert SAID - set(tomllib.loads((WEB / "ru.toml").read_text())) == set()
