"""What the API says about schedules and time zones of CronJobs."""

from __future__ import annotations

from typing import Any

import pytest

from glebe.apiserver.types.jobvalidation import validate_cron_job
from glebe.kube.objects import Object


def make(**spec: Any) -> Object:
    pod = {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}
    body = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": pod}}}, **spec}
    return {"metadata": {"name": "n"}, "spec": body}


def said(new: Object, old: Object | None = None) -> list[str]:
    causes = validate_cron_job(new, old)
    return [f"{c.field}: {c.message}" for c in causes if c.field in ("spec.schedule", "spec.timeZone")]


@pytest.mark.parametrize(
    ("spec", "messages"),
    [
        ({}, []),
        ({"schedule": "@every 1h", "timeZone": "Europe/Berlin"}, []),
        ({"schedule": ""}, ["spec.schedule: Required value"]),
        ({"schedule": "* *"}, ['spec.schedule: Invalid value: "* *": expected exactly 5 fields, found 2: [* *]']),
        (
            {"schedule": "61 * * * *"},
            ['spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61'],
        ),
        (
            {"schedule": "TZ=UTC * * * * *"},
            [
                'spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, '
                "use timeZone field instead"
            ],
        ),
        ({"timeZone": ""}, ['spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string']),
        ({"timeZone": "Nowhere"}, ['spec.timeZone: Invalid value: "Nowhere": unknown time zone Nowhere']),
        ({"timeZone": "../etc"}, ['spec.timeZone: Invalid value: "../etc": unknown time zone ../etc']),
        (
            {"timeZone": "Local"},
            [
                'spec.timeZone: Invalid value: "Local": timeZone must be an explicit time zone as defined in '
                "https://www.iana.org/time-zones"
            ],
        ),
    ],
)
def test_schedules(spec: Object, messages: list[str]) -> None:
    assert said(make(**spec)) == messages


def test_what_was_there_before_may_stay() -> None:
    old = make(schedule="TZ=UTC * * * * *")
    assert said(make(schedule="TZ=UTC 1 * * * *"), old) == []
    both = said(make(schedule="TZ=UTC 1 * * * *", timeZone="UTC"), old)
    assert both == [
        'spec.schedule: Invalid value: "TZ=UTC 1 * * * *": cannot use both timeZone field and TZ or CRON_TZ in schedule'
    ]
    assert said(make(timeZone="Gone/Away"), make(timeZone="Gone/Away")) == []
