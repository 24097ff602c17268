"""Environments set up otherwise than a developer's machine, or against us: each works or is told in a sentence.

A case is a function that takes what its module's helper gives; its name says the environment.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import failing_storage as failing
from tests.support import storage_environments as storage
from tests.support.s3_server import S3
from tests.support.storage_environments import Environment

STORAGE: list[Callable[[Environment], None]] = [
    storage.keys_in_a_profile,
    storage.endpoint_in_a_profile,
    storage.endpoint_in_the_services_of_a_profile,
    storage.keys_by_a_process,
    storage.keys_that_are_renewed,
    storage.keys_in_a_file_that_is_renewed,
    storage.a_profile_that_is_not_there,
    storage.a_process_that_fails,
    storage.single_sign_on_that_has_ended,
    storage.no_credentials,
    storage.a_password_in_the_endpoint,
    storage.an_http_proxy,
    storage.a_proxy_for_all,
    storage.a_host_without_proxy,
    storage.a_network_without_proxy,
    storage.a_dead_proxy,
    storage.own_ca_by_aws_ca_bundle,
    storage.own_ca_by_ssl_cert_file,
    storage.own_ca_in_a_profile,
    storage.a_certificate_that_is_not_trusted,
    storage.an_authority_that_is_the_server_itself,
    storage.a_ca_file_that_is_not_there,
    storage.the_requester_pays,
    storage.the_requester_does_not_say_that_he_pays,
    storage.a_bucket_in_another_region,
    storage.a_server_that_wants_another_region,
    storage.a_region_that_is_not_said,
    storage.a_clock_that_is_off,
    failing.credentials_that_expire,
    failing.a_bucket_that_goes,
    failing.access_that_is_withdrawn,
    failing.a_server_that_stays_overloaded,
    failing.connections_that_break,
    failing.a_commit_that_is_refused,
    failing.an_archived_object,
    failing.a_disk_without_hard_links,
    failing.a_disk_whose_links_overwrite,
    failing.a_server_that_ignores_conditions,
    failing.a_server_without_conditions,
    failing.a_full_disk,
    failing.a_cache_that_another_user_made,
    failing.a_cache_that_is_a_link,
    failing.a_cache_that_all_can_write_to,
    failing.a_file_planted_in_the_cache,
]


@pytest.fixture
def environment(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Environment]:
    with ExitStack() as servers:
        yield Environment(monkeypatch, tmp_path, s3, servers)


@pytest.mark.parametrize("case", STORAGE, ids=lambda case: case.__name__)
def test_storage_in_a_hostile_environment(case: Callable[[Environment], None], environment: Environment) -> None:
    case(environment)


def test_the_hostile_environments_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{len(STORAGE)} hostile environments")
