"""What goes wrong with S3, said so that it can be mended: where, doing what, the cause, the remedy."""

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)

from cluster.storage.types import NotFound, StorageError, StorageRefused, StorageUnavailable

MISSING = ("404", "NoSuchKey", "NotFound")
NO_CREDENTIALS = "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or use a role"

_DENIED = (
    "access denied; check the credentials and the policy of the bucket, and set AWS_REQUEST_PAYER=requester where the "
    "requester pays"
)
_EXPIRED = "the credentials have expired; renew them and give the same command again"
_OTHER_REGION = "the bucket is in another region; set AWS_REGION"
_REFUSED = {
    "NoSuchBucket": "there is no such bucket; create it or correct the URI",
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "AllAccessDisabled": _DENIED,
    "InvalidBucketName": "the bucket's name is not valid; correct the URI",
    "KeyTooLongError": "the key is longer than 1024 bytes; choose a shorter name",
    "InvalidObjectState": "the object is archived; restore it first",
    "NotImplemented": "the server does not implement this; use another server or version",
}
_UNAVAILABLE = {
    "InvalidAccessKeyId": "the access key is unknown there; check AWS_ACCESS_KEY_ID, AWS_PROFILE and the endpoint",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY or the profile",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN, which belongs to one pair of keys",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "PermanentRedirect": _OTHER_REGION,
    "301": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
    "SlowDown": "the server answered SlowDown, it is overloaded; give the same command again later",
}
_UNTRUSTED = "the server's TLS certificate is not trusted ({}); AWS_CA_BUNDLE must name the file of its authority"
_ITSELF = (
    "the server shows the certificate of an authority (CA:TRUE) as its own, which Delta's client refuses; give the "
    "server a certificate signed by that authority"
)
_SSO = "the single sign-on session has ended; run `aws sso login` for this profile"


class BadSetting(ValueError):
    """A variable or profile that says what cannot be; the message says which, and repeats no secret."""


def code_of(error: BaseException) -> str:
    """The server's code, such as NoSuchKey; a status where it gave none (to HEAD); empty for other errors."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


@contextmanager
def explained(where: str, operation: str, endpoint: Callable[[], str]) -> Iterator[None]:
    """Turns what boto3 raises into a :class:`StorageError` without credentials."""
    try:
        yield
    except (ClientError, BotoCoreError, Boto3Error, OSError, ValueError, RecursionError) as error:
        kind, reason = _explain(error)
        at = ""
        with suppress(Exception):  # there is none yet where the settings are wrong
            at = f" at {endpoint()}"
        raise kind(f"{where}: cannot {operation}{at}: {reason}") from error


def explain_text(text: str) -> tuple[type[StorageError], str] | None:
    """Kind and cause, where the text of another client's error holds the server's answer."""
    if code := re.search(r"<Code>(\w+)</Code>", text):
        status = re.search(r"\b([345]\d\d) [A-Z]", text)
        region = re.search(r"<Region>([\w-]+)</Region>", text)
        metadata = {"HTTPStatusCode": int(status[1]) if status else 0}
        return _of_answer(code[1], {"Error": {"Region": region and region[1]}, "ResponseMetadata": metadata})
    if found := re.search(r"invalid peer certificate\W*(?:\[\d+m\W*)*(.*)", text):
        authority = "CaUsedAsEndEntity" in found[1]
        return StorageUnavailable, _ITSELF if authority else _UNTRUSTED.format(found[1])
    if "redirect without LOCATION" in text:
        return StorageUnavailable, _OTHER_REGION
    return None


def _explain(error: Exception) -> tuple[type[StorageError], str]:
    if code := code_of(error):
        return _of_answer(code, error.response)  # type: ignore[attr-defined]
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return StorageUnavailable, NO_CREDENTIALS
    if isinstance(error, ProfileNotFound):
        return StorageUnavailable, f"{error}; check AWS_PROFILE, AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE"
    if isinstance(error, (SSOError, TokenRetrievalError)):
        return StorageUnavailable, _SSO
    if isinstance(error, CredentialRetrievalError):
        return (
            StorageUnavailable,
            f"the profile gave no credentials: {' '.join(str(error).split())}; check its credential_process or role",
        )
    if isinstance(error, SSLError):
        return StorageUnavailable, _of_certificate(error)
    if isinstance(error, ProxyConnectionError):
        return StorageUnavailable, "the proxy does not answer; check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
    if isinstance(error, (ConnectionError, HTTPClientError)):
        return StorageUnavailable, "no answer; check AWS_ENDPOINT_URL, the network and the proxy's variables"
    if isinstance(error, BadSetting):
        return StorageRefused, str(error)
    if isinstance(error, RecursionError):  # boto3 asks where the bucket is without end if no answer says it
        return StorageUnavailable, _OTHER_REGION
    if isinstance(error, (BotoCoreError, Boto3Error, ValueError)):
        return StorageRefused, f"{type(error).__name__}: {error}"
    return StorageUnavailable, f"{getattr(error, 'strerror', None) or error}"


def _of_answer(code: str, response: dict[str, Any]) -> tuple[type[StorageError], str]:
    metadata = response.get("ResponseMetadata", {})
    if code in MISSING:
        return NotFound, "no such file"
    if code == "RequestTimeTooSkewed":
        return StorageUnavailable, _of_clock(response["Error"], metadata.get("HTTPHeaders", {}))
    if code in _REFUSED:
        return StorageRefused, _REFUSED[code]
    if reason := _UNAVAILABLE.get(code):
        region = response["Error"].get("Region") or metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region")
        return StorageUnavailable, f"{reason}={region}" if region and reason == _OTHER_REGION else reason
    status = metadata.get("HTTPStatusCode", 0)
    lasting = status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS
    remedy = "see its log" if lasting else "give the same command again later, or see its log"
    return StorageRefused if lasting else StorageUnavailable, f"the server answered {code}; {remedy}"


def _of_certificate(error: SSLError) -> str:
    cause: BaseException | None = error.kwargs.get("error")
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = next((arg for arg in cause.args if isinstance(arg, BaseException)), cause.__cause__)
    said = getattr(cause, "verify_message", "") or str(cause or error.kwargs.get("error") or error)
    return _UNTRUSTED.format(said)


def _of_clock(error: dict[str, Any], headers: dict[str, str]) -> str:
    """By how much this machine's clock is off, where the answer says the server's time."""
    off = ""
    try:
        if "ServerTime" in error:
            server = datetime.fromisoformat(error["ServerTime"])
        else:
            server = parsedate_to_datetime(headers["date"])
        seconds = (datetime.now(UTC) - server).total_seconds()
        off = f" by {abs(seconds) / 60:.0f} minutes ({'ahead' if seconds > 0 else 'behind'})"
    except (KeyError, ValueError, TypeError):
        pass
    return f"the clock of this machine is off{off}; set it, best by NTP"
