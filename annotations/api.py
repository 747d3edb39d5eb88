"""The annotator's side of the HTTP API: one request per answer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import authentication, exceptions, permissions, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response as HttpResponse
from rest_framework.views import APIView

from annotations import languages, selectors
from annotations.links import trial_json
from annotations.models import InputDevice, Session, Study, Trial, TrialKind
from annotations.selectors import dashboard
from annotations.selectors.sessions import Standing
from annotations.services import summaries
from annotations.services.responses import Making, skip_trial, submit_response
from annotations.texts import practice_feedback
from annotations.wording import in_words
from elicit import counters, logs
from elicit.labels.elicited import Contradiction
from elicit.short_way import short_way

LONGEST_LIST = 1000
A_DAY_MS = 24 * 60 * 60 * 1000


class SessionLink(authentication.BaseAuthentication):
    """`Authorization: Session TOKEN`, the token being that of the annotator's personal link. For `SessionApi` alone.

    Sets `request.auth` to the session. It is no cookie, so another site can't make a browser send it.
    """

    keyword = "Session"

    def authenticate(self, request: Request) -> tuple[None, Session] | None:
        keyword, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if keyword != self.keyword:
            return None
        view: SessionApi = request.parser_context["view"]
        session = view.find_session(token.strip())
        if session is None:
            raise exceptions.AuthenticationFailed("No session has this link.")
        logs.of_session(session.pk)
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
    percentage = Percentage(allow_null=True, help_text="How likely, 0 to 100; less than 0.000001 is taken as 0.")


MILLISECONDS: dict[str, Any] = {"min_value": 0, "max_value": A_DAY_MS}
MOST_CHANGES = 10_000


class FieldTimesIn(serializers.Serializer[Any]):
    """When a control was used, from the painted image."""

    field = serializers.ChoiceField(["top", "plausible", "impossible", "percentage", "sweep"])
    category = serializers.IntegerField(min_value=0, max_value=LONGEST_LIST, allow_null=True)
    first_ms = serializers.IntegerField(**MILLISECONDS)
    last_ms = serializers.IntegerField(**MILLISECONDS)
    changes = serializers.IntegerField(min_value=0, max_value=MOST_CHANGES)
    input = serializers.ChoiceField(InputDevice.choices)


class WarningIn(serializers.Serializer[Any]):
    """A question that the screen asked back, and whether the answer was sent unchanged all the same."""

    code = serializers.ChoiceField(["scale_mix_up", "always_certain", "too_fast"])
    ms = serializers.IntegerField(**MILLISECONDS)
    kept = serializers.BooleanField()


class ProcessIn(serializers.Serializer[Any]):
    """How the answer came about, as far as the browser can tell."""

    input = serializers.ChoiceField(InputDevice.choices)
    first_touch_ms = serializers.IntegerField(**MILLISECONDS, allow_null=True, default=None)
    changes = serializers.IntegerField(min_value=0, max_value=MOST_CHANGES, default=0)
    fields_ = serializers.ListField(child=FieldTimesIn(), max_length=4 * LONGEST_LIST, default=list)
    warnings = serializers.ListField(child=WarningIn(), max_length=20, default=list)

    def get_fields(self) -> dict[str, Any]:
        """`fields` is a word of the serializer's own."""
        fields = super().get_fields()
        return {name.rstrip("_"): each for name, each in fields.items()}


class ResponseIn(serializers.Serializer[Any]):
    named = serializers.ListField(child=NamedIn(), max_length=LONGEST_LIST, help_text="Most likely first.")
    impossible = serializers.ListField(child=CategoryIndex(), max_length=LONGEST_LIST, default=list)
    duration_ms = serializers.IntegerField(min_value=0, max_value=A_DAY_MS)
    hidden_ms = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)
    revises = serializers.UUIDField(
        allow_null=True, default=None, help_text="Of a correction: the id of the response that it takes the place of."
    )
    process = ProcessIn(allow_null=True, default=None)


_answer_in = short_way(ResponseIn())


def _making(data: dict[str, Any]) -> Making:
    process = dict(data["process"] or {})
    return Making(
        duration_ms=data["duration_ms"],
        hidden_ms=data["hidden_ms"],
        input_device=process.pop("input", ""),
        first_touch_ms=process.pop("first_touch_ms", None),
        changes=process.pop("changes", 0),
        process=process,
    )


class SkipIn(serializers.Serializer[Any]):
    reason = serializers.ChoiceField(["image_failed"])


class NextTrialOut(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    image_url = serializers.CharField()
    position = serializers.IntegerField()
    framing = serializers.CharField(help_text="Which question is asked: `others` or `self`.")
    note = serializers.CharField(help_text="What the page says above the question at an attention check; else empty.")


class ShareOut(serializers.Serializer[Any]):
    category = serializers.IntegerField()
    percentage = serializers.FloatField()


class FeedbackOut(serializers.Serializer[Any]):
    html = serializers.CharField()
    shares = ShareOut(many=True)


class StandingOut(serializers.Serializer[Any]):
    done = serializers.IntegerField(help_text="Trials done at this step of the session.")
    total = serializers.IntegerField(help_text="Trials of this step.")
    next = NextTrialOut(allow_null=True, help_text="The next trial; null when none is left.")


class ResponseOut(StandingOut):
    id = serializers.UUIDField()
    trial = serializers.UUIDField()
    feedback = FeedbackOut(allow_null=True, help_text="Of a practice trial: what is told about its image.")


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


ANSWER = {
    "named": [{"category": 3, "percentage": 80}, {"category": 5, "percentage": 15}],
    "impossible": [0, 1],
    "duration_ms": 4200,
}


class SessionApi(APIView):
    """What the holder of a session's link may do."""

    authentication_classes = (SessionLink,)
    permission_classes = (HasSession,)

    @staticmethod
    def find_session(token: str) -> Session | None:
        return selectors.session_by_token(token)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        languages.speak(request, self.session(request).study)

    def handle_exception(self, exc: Exception) -> HttpResponse:
        if isinstance(exc, Contradiction):
            study = self.session(self.request).study
            exc = in_words(exc, selectors.answer_rules(study, selectors.category_count(study)))
        elif isinstance(exc, Trial.DoesNotExist):
            exc = Http404(gettext("This session has no such trial."))
        return super().handle_exception(exc)

    @staticmethod
    def session(request: Request) -> Session:
        session = request.auth
        assert isinstance(session, Session)  # noqa: S101 (HasSession saw to it)
        return session


class ResponseApi(SessionApi):
    """Store one answer."""

    @staticmethod
    def find_session(token: str) -> Session | None:
        return selectors.session_that_answers(token)

    @extend_schema(
        operation_id="put_response",
        request=ResponseIn,
        responses={201: ResponseOut, 200: OpenApiResponse(ResponseOut, "It was stored before."), **ERRORS},
        examples=[OpenApiExample("a cat, or perhaps a dog", ANSWER, request_only=True)],
    )
    def put(self, request: Request, trial_id: UUID, response_id: UUID) -> HttpResponse:
        """Store the answer to a trial under an id made by the client. Sending it again changes nothing.

        With `revises`, a correction: a new revision, while the first answer stays.
        """
        session = self.session(request)
        data = _answer_in(request.data)
        accepted = submit_response(
            session=session,
            trial_id=trial_id,
            response_id=response_id,
            named=[(item["category"], item["percentage"]) for item in data["named"]],
            impossible=data["impossible"],
            making=_making(data),
            revises=data["revises"],
            now=timezone.now(),
        )
        (counters.ACCEPTED if accepted.created else counters.RESENT).labels(session.study.slug).inc()
        trial = accepted.response.trial
        out = {
            "id": response_id,
            "trial": trial_id,
            "feedback": practice_feedback(trial, session.study) if trial.kind == TrialKind.PRACTICE else None,
            **_standing(accepted.standing, session),
        }
        return HttpResponse(out, status.HTTP_201_CREATED if accepted.created else status.HTTP_200_OK)

    def handle_exception(self, exc: Exception) -> HttpResponse:
        response = super().handle_exception(exc)
        counters.REFUSED.labels(response.data["code"]).inc()
        return response


class SkipApi(SessionApi):
    """Pass over a trial whose image can't be shown."""

    @staticmethod
    def find_session(token: str) -> Session | None:
        return selectors.session_that_answers(token)

    @extend_schema(operation_id="skip_trial", request=SkipIn, responses={200: StandingOut, **ERRORS})
    def put(self, request: Request, trial_id: UUID) -> HttpResponse:
        """Note that the trial's image did not load and go on without it. Sending it again changes nothing."""
        session = self.session(request)
        SkipIn(data=request.data).is_valid(raise_exception=True)
        standing = skip_trial(session=session, trial_id=trial_id, now=timezone.now())
        return HttpResponse(_standing(standing, session))


class MayWatch(permissions.BasePermission):
    """Curators and whoever else may see studies."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return request.user.has_perm("annotations.view_study")


class StepOut(serializers.Serializer[Any]):
    key = serializers.CharField()
    name = serializers.CharField()
    reached = serializers.IntegerField(help_text="Sessions that came as far.")
    open = serializers.IntegerField(help_text="Of these, those that stand there and may go on.")
    at_work = serializers.IntegerField(help_text="Of these, those that gave a sign of life within five minutes.")
    lost = serializers.IntegerField(help_text="Went no further, and do not stand there any more.")


class AlarmOut(serializers.Serializer[Any]):
    code = serializers.CharField()
    says = serializers.CharField()
    do = serializers.CharField(help_text="What to do about it.")
    urgent = serializers.BooleanField()


class CoverageOut(serializers.Serializer[Any]):
    wanted = serializers.IntegerField(help_text="Labels wanted of an image.")
    labels = serializers.IntegerField(help_text="Labels that count, of all images.")
    images = serializers.ListField(child=serializers.IntegerField(), help_text="How many images have 0, 1, ... labels.")


class CostOut(serializers.Serializer[Any]):
    """In minor units of the currency: pence, cents."""

    base_minor = serializers.IntegerField()
    bonus_minor = serializers.IntegerField()
    fees_minor = serializers.IntegerField()
    currency = serializers.CharField()


class SummaryOut(serializers.Serializer[Any]):
    version = serializers.IntegerField(help_text="Raised whenever `data` has another form.")
    until = serializers.DateTimeField(help_text="Everything that was there at this time is in it.")
    computed_at = serializers.DateTimeField()
    data = serializers.DictField()  # type: ignore[assignment]


class DashboardOut(serializers.Serializer[Any]):
    now = serializers.DateTimeField()
    status = serializers.CharField()
    steps = StepOut(many=True)
    coverage = CoverageOut()
    places = serializers.IntegerField()
    places_free = serializers.IntegerField()
    last_answer = serializers.DateTimeField(allow_null=True)
    flagged = serializers.IntegerField()
    excluded = serializers.IntegerField()
    cost = CostOut()
    alarms = AlarmOut(many=True)
    summary = SummaryOut(allow_null=True, help_text="A worker's; null while there is none yet.")


class DashboardApi(APIView):
    """What a study's dashboard shows."""

    permission_classes = (MayWatch,)

    @extend_schema(operation_id="get_dashboard", responses=DashboardOut)
    def get(self, request: Request, slug: str) -> HttpResponse:
        """The study now, its alarms, and a worker's latest summary; a new one is asked for where it is due."""
        study = get_object_or_404(Study.objects.select_related("dataset"), slug=slug)
        now = timezone.now()
        summaries.ask(study, now)
        live = dashboard.live(study, now)
        shown = {**vars(live), "status": study.status, "alarms": dashboard.all_alarms(study, live)}
        return HttpResponse(DashboardOut(shown).data)


def _standing(standing: Standing, session: Session) -> dict[str, Any]:
    following = standing.next_trial
    return {
        "done": standing.done,
        "total": standing.total,
        "next": trial_json(following, session.study) if following else None,
    }
