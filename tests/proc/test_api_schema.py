"""The REST API against its own OpenAPI document: schemathesis makes calls up, right and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from api_world import Api, web_lbfast
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# Ends never (events), or takes the appliance's own things from under the other calls (restore, commits of anything).
LEFT_OUT = {"/events/stream"}


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with web_lbfast() as (_, api):
        yield api


def test_every_call_keeps_to_the_document(api: Api) -> None:
    document = api.ok("GET", "/api/v1/openapi.json")
    for path in LEFT_OUT:
        document["paths"].pop(path)
    operations = [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]
    assert len(operations) > 50
    for operation in operations:
        check_operation(operation, api)


def check_operation(operation: Any, api: Api) -> None:
    """Some calls of one operation; the first that breaks its promise is raised."""

    @settings(max_examples=5, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        case.call_and_validate(
            base_url=f"https://127.0.0.1:{api.port}/api/v1",
            headers={"authorization": f"Bearer {api.key}"},
            verify=False,
            checks=CHECKS,
        )

    check()
