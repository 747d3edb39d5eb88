"""A sitting over the API, from consent to withdrawal: what the annotator's pages do, for programs that take part."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import exceptions, serializers, status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response as HttpResponse
from rest_framework.views import APIView

from annotations import languages, selectors
from annotations.api import ERRORS, ErrorOut, NextTrialOut, SessionApi
from annotations.errors import AnnotationError, refuse
from annotations.links import answer_json, trial_json
from annotations.models import Session, SessionStatus, Study
from annotations.questionnaire import LONGEST_TEXT, ComprehensionForm, QuestionnaireForm
from annotations.recruitment import adapter
from annotations.recruitment.base import NotAdmitted
from annotations.selectors import recruitment as recruited
from annotations.services import leaving, recruitment, sessions

MOST_PARAMETERS = 10
# A step that somebody leaves by saying so; trials are left by their last answer.
STEPS = ("instructions", "practice", "comprehension", "questionnaire")


class ConsentOut(serializers.Serializer[Any]):
    version = serializers.IntegerField(help_text="To be sent back by whoever agrees.")
    title = serializers.CharField()
    text = serializers.CharField(help_text="Markdown.")


class StudyOut(serializers.Serializer[Any]):
    study = serializers.CharField(help_text="Its slug.")
    name = serializers.CharField()
    open = serializers.BooleanField(help_text="Whether somebody new can take part now.")
    consent = ConsentOut()


class BeginIn(serializers.Serializer[Any]):
    """Agreement to the consent text."""

    consent_version = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, help_text="Of the text that was agreed to, as `get_study` gives it."
    )
    parameters = serializers.DictField(
        child=serializers.CharField(max_length=200, allow_blank=True, trim_whitespace=False),
        default=dict,
        help_text="What stands in the query of the link that a recruiting platform made, such as `PROLIFIC_PID`, "
        "or `invitation`; `pid` on an open link.",
    )

    def validate_parameters(self, value: dict[str, str]) -> dict[str, str]:
        if len(value) > MOST_PARAMETERS:
            raise exceptions.ValidationError(f"{MOST_PARAMETERS} parameters at most.")
        return value


class CategoryOut(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    name = serializers.CharField()


class RulesOut(serializers.Serializer[Any]):
    most_named = serializers.IntegerField(allow_null=True, help_text="Categories that an answer may name; null: all.")
    sum_limit = serializers.FloatField(allow_null=True, help_text="What percentages may add up to; null: no limit.")
    ask_impossible = serializers.BooleanField(help_text="Whether categories may be ruled out.")


class QuestionOut(serializers.Serializer[Any]):
    """As the study has it, but for the answer of a comprehension question."""

    name = serializers.CharField()
    question = serializers.CharField()
    kind = serializers.ChoiceField(["scale", "choice", "text"])
    low = serializers.IntegerField(required=False)
    high = serializers.IntegerField(required=False)
    choices = serializers.ListField(child=serializers.CharField(), required=False)
    required = serializers.BooleanField(required=False)  # type: ignore[assignment]  # the field's name
    help = serializers.CharField(required=False)


class SessionOut(serializers.Serializer[Any]):
    study = serializers.CharField(help_text="Slug of the study.")
    status = serializers.ChoiceField(SessionStatus.choices, help_text="The step at which the session stands.")
    done = serializers.IntegerField(help_text="Trials done at this step.")
    total = serializers.IntegerField(help_text="Trials of this step.")
    next = NextTrialOut(allow_null=True, help_text="The next trial; null when none is left or none is due.")
    categories = CategoryOut(many=True, help_text="In the order drawn for this session.")
    rules = RulesOut()
    questions = QuestionOut(many=True, help_text="Of the comprehension check or the questionnaire, at those steps.")
    attempt = serializers.IntegerField(help_text="How often the comprehension check was tried.")
    wrong = serializers.ListField(
        child=serializers.CharField(), help_text="Comprehension questions that this request answered wrongly."
    )
    completion_code = serializers.CharField(help_text="Of a completed session, where its platform wants one.")


class SessionBegunOut(SessionOut):
    token = serializers.CharField(help_text="For `Authorization: Session TOKEN`. A secret of this session.")


class StepIn(serializers.Serializer[Any]):
    """Which step is over; and what it asked, where it asked something."""

    step = serializers.ChoiceField(STEPS)
    attempt = serializers.IntegerField(
        min_value=0, max_value=2, default=0, help_text="Of the comprehension check: `attempt` as `get_session` gave it."
    )
    answers = serializers.DictField(
        child=serializers.CharField(max_length=LONGEST_TEXT, allow_blank=True, trim_whitespace=False),
        default=dict,
        help_text="By name of the question: the number of a scale as text, a choice's words, or text.",
    )


_NO_STUDY = OpenApiResponse(ErrorOut, "No such study, or not launched.")


def _study(slug: str) -> Study:
    study = selectors.launched_study(slug)
    if study is None:
        raise Http404("There is no such study.")
    return study


class StudyApi(APIView):
    """What somebody reads before they take part."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(operation_id="get_study", responses={200: StudyOut, 404: _NO_STUDY})
    def get(self, request: Request, slug: str) -> HttpResponse:
        """A launched study and its consent text, as the study's link shows it to anybody."""
        study = _study(slug)
        consent = selectors.current_consent(study)
        if consent is None:
            raise Http404("There is no such study.")
        return HttpResponse(
            StudyOut(
                {
                    "study": study.slug,
                    "name": study.name,
                    "open": not selectors.why_shut(study),
                    "consent": consent,
                }
            ).data
        )


class BeginApi(APIView):
    """Where a sitting begins."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="begin_session",
        request=BeginIn,
        responses={
            201: SessionBegunOut,
            400: ERRORS[400],
            404: _NO_STUDY,
            409: OpenApiResponse(
                ErrorOut,
                "`study_not_live`, `study_full`, `consent_missing` (the text has changed: read it again), "
                "`other_browser` (this person has a session already), or a code of invitations and submissions.",
            ),
        },
        examples=[OpenApiExample("agreed", {"consent_version": 1}, request_only=True)],
    )
    def post(self, request: Request, slug: str) -> HttpResponse:
        """Agree to the consent text and get a session. Its token is told here and nowhere else.

        The same doors are open and shut as on the study's link. Sending it again on an open link without `pid` begins
        another session.
        """
        study = _study(slug)
        languages.speak(request, study)
        body = BeginIn(data=request.data)
        body.is_valid(raise_exception=True)
        now = timezone.now()
        recruiting = recruited.of_study(study)
        try:
            visit = adapter(recruiting.platform).read(body.validated_data["parameters"], recruiting)
        except NotAdmitted as problem:
            raise exceptions.ValidationError({"parameters": [f"The link is {problem.code}."]}) from problem
        door = recruitment.come_to_the_door(study, visit, remembered=None, now=now)
        if door.session is not None:
            raise refuse("other_browser")
        session = recruitment.admit(
            study=study,
            visit=visit,
            heard=door.heard,
            consent_version=body.validated_data["consent_version"],
            now=now,
            rng=np.random.default_rng(),
        )
        told = _told(selectors.in_its_arm(session))
        return HttpResponse({**told, "token": session.token}, status.HTTP_201_CREATED)


class OneSessionApi(SessionApi):
    """A session as its holder sees it."""

    @extend_schema(
        operation_id="get_session",
        responses={
            200: SessionOut,
            401: ERRORS[401],
            409: OpenApiResponse(ErrorOut, "`place_given_away`: it was away for too long."),
        },
    )
    def get(self, request: Request) -> HttpResponse:
        """Where the session stands: its step, its next trial, and what an answer may say."""
        return HttpResponse(_told(sessions.wake(self.session(request), timezone.now())))

    @extend_schema(
        operation_id="withdraw",
        request=None,
        responses={
            204: OpenApiResponse(description="Erased; doing it again changes nothing."),
            401: ERRORS[401],
        },
    )
    def delete(self, request: Request) -> HttpResponse:
        """Take back everything that was given: answers are erased for good, and the place goes to somebody else."""
        try:
            leaving.withdraw(session_id=self.session(request).pk, now=timezone.now())
        except AnnotationError as error:
            if error.code != "already_withdrawn":
                raise
        return HttpResponse(status=status.HTTP_204_NO_CONTENT)


class StepApi(SessionApi):
    """Where a step of the sitting ends."""

    @extend_schema(
        operation_id="leave_step",
        request=StepIn,
        responses={
            200: SessionOut,
            400: ERRORS[400],
            401: ERRORS[401],
            409: OpenApiResponse(ErrorOut, "`study_full`, `study_not_live` or `place_given_away`."),
        },
        examples=[OpenApiExample("read", {"step": "instructions"}, request_only=True)],
    )
    def post(self, request: Request) -> HttpResponse:
        """Go on from the instructions, the practice, the comprehension check or the questionnaire.

        Of a step at which the session does not stand, it changes nothing and tells where it stands: sending it again
        is harmless.
        """
        body = StepIn(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        session, wrong = sessions.wake(self.session(request), timezone.now()), list[str]()
        if session.status == data["step"]:
            session, wrong = _leave(session, data)
        return HttpResponse(_told(session, wrong))


def _leave(session: Session, data: dict[str, Any]) -> tuple[Session, list[str]]:
    now, rng = timezone.now(), np.random.default_rng()
    match data["step"]:
        case "instructions":
            return sessions.leave_instructions(session_id=session.pk, now=now, rng=rng), []
        case "practice":
            return sessions.leave_practice(session_id=session.pk, now=now, rng=rng), []
        case "comprehension":
            check = ComprehensionForm(session.study.comprehension, {**data["answers"], "_attempt": data["attempt"]})
            _answered(check)
            session, wrong = sessions.check_comprehension(
                session_id=session.pk, attempt=data["attempt"], answers=check.answers, now=now, rng=rng
            )
            # As on the page: who may not try again is not told what was wrong.
            return session, wrong if session.status == SessionStatus.COMPREHENSION else []
        case _:
            form = QuestionnaireForm(session.study.questionnaire, data["answers"])
            _answered(form)
            return sessions.save_questionnaire(session_id=session.pk, answers=form.cleaned_data, now=now), []


def _answered(form: QuestionnaireForm) -> None:
    if not form.is_valid():
        raise exceptions.ValidationError(
            {"answers": {name: [str(text) for text in texts] for name, texts in form.errors.items()}}
        )


def _told(session: Session, wrong: list[str] | None = None) -> dict[str, Any]:
    study = session.study
    at_trials = session.status in (SessionStatus.PRACTICE, SessionStatus.TRIALS)
    following = selectors.next_trial(session) if at_trials else None
    done, total = selectors.trial_counts(session)
    questions: list[dict[str, Any]] = {
        SessionStatus.COMPREHENSION.value: study.comprehension,
        SessionStatus.QUESTIONNAIRE.value: study.questionnaire,
    }.get(session.status, [])
    completed = session.status == SessionStatus.COMPLETED
    return {
        "study": study.slug,
        "status": session.status,
        "done": done,
        "total": total,
        "next": trial_json(following, study) if following else None,
        **answer_json(study, selectors.category_names(study), session.category_order),
        "questions": [{name: each for name, each in item.items() if name != "answer"} for item in questions],
        "attempt": session.comprehension_attempts,
        "wrong": wrong or [],
        "completion_code": recruited.departure(study, recruited.outcome_of(session)).code if completed else "",
    }
