"""The way to S3, found once per process by boto3's rules and handed to every client.

Two clients speak S3 here: boto3, for all our own reads and writes and for Arrow's (:mod:`cluster.storage.arrow`), and
the one inside delta-rs. Left alone, each reads environment and profiles in its own way. So boto3's session finds
credentials, region, endpoint and certificate authority; the proxy is chosen here; and delta-rs is given the result as
options and looks for nothing itself.

Nothing of this is ever pickled: every process finds its own.
"""

import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Never
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import create_loader

from cluster.storage.s3_errors import NO_CREDENTIALS, BadSetting, explained
from cluster.storage.types import StorageUnavailable

READ_S = 60
"""A server may be silent for so long; then the request is repeated, a few times."""

_DEFAULT_REGION = "us-east-1"
_ALSO_READ = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "requests_ca_bundle", "home"}


def connection() -> "Connection":
    """That of the present environment; found anew where a variable changed."""
    relevant = (name for name in os.environ if name.startswith("AWS_") or name.lower() in _ALSO_READ)
    with _finding:
        return _find(tuple(sorted((name, os.environ[name]) for name in relevant)))


def forget() -> None:
    """Find everything anew at the next use: credentials in files may have been renewed."""
    _find.cache_clear()


_finding = threading.Lock()
_loader = create_loader()  # holds what it has read of boto3's descriptions of services, the slow part of a new session


@lru_cache(maxsize=4)
def _find(environment: tuple[tuple[str, str], ...]) -> "Connection":
    core = botocore.session.Session()
    core.register_component("data_loader", _loader)
    if region := os.environ.get("AWS_REGION"):
        core.set_config_variable("region", region)
    return Connection(core)


@dataclass(frozen=True, eq=False)
class Connection:
    """Everything that a client of S3 has to know. Credentials stay inside boto3's session, which renews them."""

    session: botocore.session.Session = field(repr=False)

    def __reduce__(self) -> Never:
        raise TypeError("a connection to S3 holds credentials and is not pickled")

    @property
    def attempts(self) -> int:
        """How often a request is made at most, as set (AWS_MAX_ATTEMPTS or the profile)."""
        return int(self.session.get_config_variable("max_attempts") or 5)

    @property
    def client(self) -> Any:
        """boto3's, thread-safe and shared by the process."""
        return self._patient

    @property
    def quick_client(self) -> Any:
        """Gives up within seconds."""
        return self._quick

    @property
    def endpoint(self) -> str:
        """URL of the server: the one set, else that of AWS in this region."""
        return str(self._patient.meta.endpoint_url).rstrip("/")

    @property
    def region(self) -> str:
        """The one set; a bucket may be elsewhere (:meth:`region_of`)."""
        return str(self.session.get_config_variable("region") or _DEFAULT_REGION)

    @cached_property
    def ca_bundle(self) -> str | None:
        """PEM file of the certificate authorities to trust; None for the public ones."""
        named = self.session.get_config_variable("ca_bundle")
        return named or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or None

    @cached_property
    def requester_pays(self) -> bool:
        """Whether AWS_REQUEST_PAYER says that we pay for what we read."""
        return os.environ.get("AWS_REQUEST_PAYER", "").lower() in ("requester", "true")

    @cached_property
    def proxy(self) -> str | None:
        """URL of the proxy that leads to the endpoint."""
        return find_proxy(self.endpoint)

    def region_of(self, bucket: str) -> str:
        """Where the bucket is, as the server says; boto3 follows redirections by itself, delta-rs does not."""
        if bucket not in self._regions:
            with suppress(ClientError):  # the operation itself will explain it better
                self.client.list_objects_v2(Bucket=bucket, MaxKeys=1)
            self._regions.setdefault(bucket, self.region)
        return self._regions[bucket]

    def _note_region(self, response_dict: Any, parsed_response: Any, context: dict[str, Any], **_: Any) -> None:
        headers, error = (response_dict or {}).get("headers", {}), (parsed_response or {}).get("Error", {})
        if region := headers.get("x-amz-bucket-region") or error.get("Region"):
            self._regions[context["s3_redirect"]["bucket"]] = region

    def delta_options(self, bucket: str) -> dict[str, str]:
        """``storage_options`` of deltalake, with credentials that are valid for minutes at least."""
        with explained(f"s3://{bucket}", "connect", lambda: self.endpoint):
            credentials = self.session.get_credentials()
            if credentials is None:  # else delta-rs would ask the instance-metadata service
                raise StorageUnavailable(f"s3://{bucket}: cannot connect: {NO_CREDENTIALS}")
            keys = credentials.get_frozen_credentials()
            region = self.region_of(bucket)
        if self.ca_bundle:
            # delta-rs has no option for it: its TLS library reads this variable when a connection is made.
            os.environ["SSL_CERT_FILE"] = self.ca_bundle
        options = {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_REGION": region,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": str(self.endpoint.startswith("http:")).lower(),
            "AWS_CONDITIONAL_PUT": "etag",
            # What goes wrong is tried again for a minute at most; by default it would be three.
            "connect_timeout": "10s",
            "timeout": f"{READ_S}s",
            "max_retries": str(self.attempts),
            "retry_timeout": f"{READ_S}s",
        }
        if keys.token:
            options["AWS_SESSION_TOKEN"] = keys.token
        if self.requester_pays:
            options["AWS_REQUEST_PAYER"] = "true"
        return options | self._delta_proxy()

    def _delta_proxy(self) -> dict[str, str]:
        if self.proxy:
            return {"proxy_url": self.proxy}
        proxies = getproxies_environment()
        excluded = proxies.get(urlsplit(self.endpoint).scheme) or proxies.get("all")
        return {"proxy_url": excluded, "proxy_excludes": urlsplit(self.endpoint).hostname or ""} if excluded else {}

    @cached_property
    def _boto3(self) -> boto3.Session:
        return boto3.Session(botocore_session=self.session)

    @cached_property
    def _regions(self) -> dict[str, str]:
        return {}

    @cached_property
    def _patient(self) -> Any:
        return self._make_client(10, READ_S, self.attempts)

    @cached_property
    def _quick(self) -> Any:
        return self._make_client(3, 10, 2)

    def _make_client(self, connect_s: int, read_s: int, attempts: int) -> Any:
        config = Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"mode": "standard", "max_attempts": attempts},
            max_pool_connections=32,
        )
        client = self._checked_client(config)
        endpoint = client.meta.endpoint_url
        if getproxies_environment():  # which of them is taken depends on the endpoint, known only now
            proxy = find_proxy(endpoint)
            proxies = {urlsplit(endpoint).scheme: proxy} if proxy else {}
            client = self._checked_client(config.merge(Config(proxies=proxies)))
        client.meta.events.register("response-received.s3", self._note_region)
        if self.requester_pays:
            client.meta.events.register("before-call.s3", _pay)
        return client

    def _checked_client(self, config: Config) -> Any:
        """
        Raises:
            BadSetting: the endpoint is no http(s) URL, or carries a user name or password; or no CA file is there.
        """
        if self.ca_bundle and not os.path.exists(self.ca_bundle):
            raise BadSetting(f"there is no file {self.ca_bundle} of certificate authorities; correct AWS_CA_BUNDLE")
        bad = BadSetting("AWS_ENDPOINT_URL must look like http://host:port, without user name or password")
        try:
            client = self._boto3.client("s3", region_name=self.region, verify=self.ca_bundle, config=config)
        except ValueError:
            raise bad from None
        parts = urlsplit(client.meta.endpoint_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise bad
        return client


def find_proxy(url: str) -> str | None:
    """The proxy of the environment for a URL: the scheme's, else ALL_PROXY, unless NO_PROXY excludes the host."""
    proxies = getproxies_environment()
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass_environment(parts.netloc, proxies) or _in_network(parts.hostname, proxies.get("no")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _in_network(host: str | None, excluded: str | None) -> bool:
    """Whether NO_PROXY holds a network, such as 10.0.0.0/8, that ``host`` is an address of."""
    for entry in (excluded or "").split(","):
        with suppress(ValueError):
            if "/" in entry and ip_address(host or "") in ip_network(entry.strip(), strict=False):
                return True
    return False


def _pay(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"
