"""The annotator's side of the HTTP API: one request per answer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import authentication, exceptions, permissions, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response as HttpResponse
from rest_framework.views import APIView

from annotations import selectors
from annotations.links import trial_json
from annotations.models import Session, Trial
from annotations.services.responses import Timing, submit_response

LONGEST_LIST = 1000
A_DAY_MS = 24 * 60 * 60 * 1000


class SessionLink(authentication.BaseAuthentication):
    """`Authorization: Session TOKEN`, the token being that of the annotator's personal link.

    Sets `request.auth` to the session. It is no cookie, so another site can't make a browser send it.
    """

    keyword = "Session"

    def authenticate(self, request: Request) -> tuple[None, Session] | None:
        keyword, _, token = request.headers.get("Authorization", "").partition(" ")
        if keyword != self.keyword:
            return None
        session = selectors.session_by_token(token.strip())
        if session is None:
            raise exceptions.AuthenticationFailed("No session has this link.")
        return None, session

    def authenticate_header(self, request: Request) -> str:
        return self.keyword


class SessionLinkScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = SessionLink
    name = "sessionLink"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Session TOKEN`: the token of the annotator's personal link.",
        }


class HasSession(permissions.BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.auth, Session)


@extend_schema_field({"type": "number", "minimum": 0, "maximum": 100})
class Percentage(serializers.Field[Any, Any, Any, Any]):
    """Passed on as it came: `elicit.labels.elicited` alone says what a percentage is."""

    def to_internal_value(self, data: object) -> object:
        return data


@extend_schema_field({"type": "integer", "minimum": 0})
class CategoryIndex(Percentage):
    """Passed on as it came, for the same reason."""


class NamedIn(serializers.Serializer[Any]):
    """A category and how likely it is."""

    category = CategoryIndex(help_text="Index of the category.")
    percentage = Percentage(allow_null=True, help_text="How likely, 0 to 100.")


class ResponseIn(serializers.Serializer[Any]):
    named = serializers.ListField(child=NamedIn(), max_length=LONGEST_LIST, help_text="Most likely first.")
    impossible = serializers.ListField(child=CategoryIndex(), max_length=LONGEST_LIST, default=list)
    duration_ms = serializers.IntegerField(min_value=0, max_value=A_DAY_MS)
    hidden_ms = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)


class NextTrialOut(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    image_url = serializers.CharField()
    position = serializers.IntegerField()


class ResponseOut(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    trial = serializers.UUIDField()
    done = serializers.IntegerField(help_text="Trials answered in this session.")
    total = serializers.IntegerField(help_text="Trials of this session.")
    next = NextTrialOut(allow_null=True, help_text="The next trial; null when all are answered.")


class ErrorOut(serializers.Serializer[Any]):
    """Every error has this form. `code` is for programs, `message` for people, `fields` names what is wrong where."""

    code = serializers.CharField()
    message = serializers.CharField()
    fields = serializers.DictField(child=serializers.CharField())  # type: ignore[assignment]


ERRORS = {
    400: OpenApiResponse(ErrorOut, "The body is not of this form."),
    401: OpenApiResponse(ErrorOut, "No session has this link."),
    404: OpenApiResponse(ErrorOut, "The session has no such trial."),
    409: OpenApiResponse(ErrorOut, "Answered already, or the session is not at its trials."),
    422: OpenApiResponse(ErrorOut, "The answer contradicts itself or the study's rules."),
}


class ResponseApi(APIView):
    """Store one answer."""

    authentication_classes = (SessionLink,)
    permission_classes = (HasSession,)

    @extend_schema(
        operation_id="put_response",
        request=ResponseIn,
        responses={201: ResponseOut, 200: OpenApiResponse(ResponseOut, "It was stored before."), **ERRORS},
    )
    def put(self, request: Request, trial_id: UUID, response_id: UUID) -> HttpResponse:
        """Store the answer to a trial under an id made by the client. Sending it again changes nothing."""
        session = request.auth
        assert isinstance(session, Session)  # noqa: S101 (HasSession saw to it)
        body = ResponseIn(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        try:
            accepted = submit_response(
                session=session,
                trial_id=trial_id,
                response_id=response_id,
                named=[(item["category"], item["percentage"]) for item in data["named"]],
                impossible=data["impossible"],
                timing=Timing(data["duration_ms"], data["hidden_ms"]),
                now=timezone.now(),
            )
        except Trial.DoesNotExist as error:
            raise Http404("This session has no such trial.") from error
        following = accepted.next_trial
        out = {
            "id": response_id,
            "trial": trial_id,
            "done": accepted.done,
            "total": accepted.total,
            "next": trial_json(following, session.study) if following else None,
        }
        return HttpResponse(out, status.HTTP_201_CREATED if accepted.created else status.HTTP_200_OK)
