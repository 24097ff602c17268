"""The hostile environments of storage: settings of S3, faults in the middle, disks and caches."""

from collections.abc import Callable

from tests.support import failing_storage as failing
from tests.support import storage_environments as storage
from tests.support.storage_environments import Environment

CASES: list[Callable[[Environment], None]] = [
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
