"""What is said to a client whose request is not answered, in the form that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """A request is not answered.

    Args:
        status: of HTTP.
        message: for a person: what is wrong and what to do.
        param: the field that is wrong.
        code: for a program.
        retry_after: seconds after which another try makes sense.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What goes with it."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def wrong_field(param: str, expected: str, found: object) -> Refusal:
    """A field does not hold what it should."""
    return Refusal(400, f"{param}: expected {expected}; found {shown(found)}", param=param, code="invalid_value")


def shown(value: object) -> str:
    """A value as a message shows it: a long one cut."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
