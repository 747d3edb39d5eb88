"""The annotator's pages: consent, instructions, trials, questionnaire, thank-you. Each survives a reload."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from django import forms
from django.conf import settings
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from annotations import image_store, selectors
from annotations.errors import AnnotationError
from annotations.links import trial_json
from annotations.markdown import to_html
from annotations.models import Session, SessionStatus, Study, StudyStatus
from annotations.questionnaire import QuestionnaireForm
from annotations.services import sessions

COOKIE_DAYS = 30
LONGEST_PLATFORM_ID = 120
KEYS = "1234567890"
FOR_EVER = "public, max-age=31536000, immutable"


class ConsentForm(forms.Form):
    agree = forms.BooleanField(
        label="I have read this, I am at least 18 years old, and I agree to take part.",
        error_messages={"required": "To take part, please agree first."},
    )
    version = forms.IntegerField(widget=forms.HiddenInput)


def _message(request: HttpRequest, title: str, text: str, status: int, **context: Any) -> HttpResponse:
    return render(request, "annotate/message.html", {"title": title, "text": text, **context}, status=status)


def _unknown_link(request: HttpRequest) -> HttpResponse:
    text = _("Please check that you copied all of it, or open the study's link again.")
    return _message(request, _("This link is not known"), text, 404)


STOPS = {
    "study_full": (
        "This study is complete",
        "It has all the annotators that it needs just now. Thank you for your interest.",
    ),
    "study_not_live": ("This study is not open", "It takes no new annotators at the moment."),
    "place_given_away": (
        "Your place was given to somebody else",
        "You were away for a while, and the study has filled up meanwhile. What you answered is kept. Thank you.",
    ),
}


def _stopped(request: HttpRequest, error: AnnotationError, study: Study) -> HttpResponse:
    title, text = STOPS.get(error.code, ("That did not work", error.message))
    return _message(request, title, text, 409, study=study)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def study_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The link that a curator shares. Shows the consent text; agreeing makes a session."""
    study = Study.objects.select_related("dataset").exclude(status=StudyStatus.DRAFT).filter(slug=slug).first()
    platform_id = request.GET.get("pid", "")
    # Cut short, two people's ids could become one; and PostgreSQL stores no NUL.
    if study is None or len(platform_id) > LONGEST_PLATFORM_ID or "\0" in platform_id:
        return _unknown_link(request)
    known = selectors.resumable_session(study, platform_id) or _remembered(request, study, platform_id)
    if known:
        return redirect("session", known.token)
    consent = selectors.current_consent(study)
    if consent is None:
        raise Http404
    form = ConsentForm(request.POST if request.method == "POST" else None, initial={"version": consent.version})
    if study.status != StudyStatus.LIVE or not selectors.has_free_place(study):
        code = "study_not_live" if study.status != StudyStatus.LIVE else "study_full"
        return _stopped(request, AnnotationError(code, code), study)
    if request.method == "POST" and form.is_valid():
        try:
            session = sessions.begin_session(
                study=study,
                consent_version=form.cleaned_data["version"],
                platform_id=platform_id,
                now=timezone.now(),
                rng=np.random.default_rng(),
            )
        except AnnotationError as error:
            if error.code != "consent_missing":
                return _stopped(request, error, study)
            form = ConsentForm({"version": consent.version})
            form.errors["agree"] = form.error_class([error.message])
        else:
            response = redirect("session", session.token)
            _remember(response, session)
            return response
    return render(
        request,
        "annotate/consent.html",
        {
            "study": study,
            "consent": {"title": consent.title, "html": to_html(consent.text), "version": consent.version},
            "form": form,
            "time_estimate": study.time_estimate,
            "pay_note": study.pay_note,
        },
        status=422 if form.is_bound else 200,
    )


def _cookie(study: Study) -> str:
    return f"elicit-{study.pk}"


def _remember(response: HttpResponseBase, session: Session) -> None:
    """So that the study's link leads this browser back to its session. Signed: a cookie can't be made up."""
    response.set_signed_cookie(
        _cookie(session.study),
        session.token,
        max_age=COOKIE_DAYS * 86400,
        httponly=True,
        samesite="Lax",
        secure=settings.SESSION_COOKIE_SECURE,
    )


def _remembered(request: HttpRequest, study: Study, platform_id: str) -> Session | None:
    """The session of this browser, unless the link names another person."""
    try:
        token = request.get_signed_cookie(_cookie(study), default="")
    except signing.BadSignature:
        return None
    session = selectors.session_by_token(token) if token else None
    if session is None or session.study_id != study.pk:
        return None
    return session if not platform_id or session.participant.platform_id == platform_id else None


SessionView = Callable[[HttpRequest, Session], HttpResponse]


def _with_session(view: SessionView) -> Callable[[HttpRequest, str], HttpResponse]:
    """Find the session of the link, let it come back if it was given up, and note the sign of life."""

    @wraps(view)
    def wrapped(request: HttpRequest, token: str) -> HttpResponse:
        session = selectors.session_by_token(token)
        if session is None:
            return _unknown_link(request)
        now = timezone.now()
        if session.status == SessionStatus.ABANDONED:
            try:
                session = sessions.come_back(session_id=session.pk, now=now)
            except AnnotationError as error:
                return _stopped(request, error, session.study)
        sessions.saw(session, now)
        return view(request, session)

    return wrapped


@never_cache
@require_safe
@_with_session
def session_page(request: HttpRequest, session: Session) -> HttpResponse:
    """Where the session stands: one address for all of its steps."""
    match session.status:
        case SessionStatus.INSTRUCTIONS:
            return _instructions(request, session)
        case SessionStatus.TRIALS:
            return _trial(request, session)
        case SessionStatus.QUESTIONNAIRE:
            return _questionnaire(request, session, QuestionnaireForm(session.study.questionnaire))
        case _:
            return _done(request, session)


def _context(request: HttpRequest, session: Session, **context: Any) -> dict[str, Any]:
    done, total = selectors.trial_counts(session)
    link = request.build_absolute_uri(reverse("session", args=[session.token]))
    progress = {"done": done, "total": total, "percent": round(100 * done / total)} if total else None
    return {
        "study": session.study,
        "personal_link": link,
        "progress": progress,
        "session": session,
        **context,
    }


def _instructions(request: HttpRequest, session: Session) -> HttpResponse:
    study = session.study
    context = _context(
        request,
        session,
        instructions_html=to_html(study.instructions),
        trial_count=selectors.trials_in_session(study),
        form_action=reverse("begin-trials", args=[session.token]),
    )
    return render(request, "annotate/instructions.html", context)


@never_cache
@require_POST
@_with_session
def begin_trials(request: HttpRequest, session: Session) -> HttpResponse:
    try:
        sessions.begin_trials(session_id=session.pk, now=timezone.now(), rng=np.random.default_rng())
    except AnnotationError as error:
        return _stopped(request, error, session.study)
    return redirect("session", session.token)


def _trial(request: HttpRequest, session: Session) -> HttpResponse:
    study = session.study
    names = selectors.category_names(study)
    waiting = [trial_json(trial, study) for trial in selectors.open_trials(session)]
    if not waiting:  # the last answer came in while this page was being made
        return redirect("session", session.token)
    context = _context(request, session)
    rules = selectors.answer_rules(study, len(names))
    keys = KEYS if len(names) <= len(KEYS) else ""
    categories = [
        {"index": index, "name": names[index], "key": keys[place] if keys else ""}
        for place, index in enumerate(session.category_order)
    ]
    context |= {
        "categories": categories,
        "current": waiting[0],
        "rules": rules,
        "framing": study.framing,
        "trial_data": {
            "api": "/api/trials/{trial}/responses/{response}",
            "authorization": f"Session {session.token}",
            "next_url": reverse("session", args=[session.token]),
            "trials": waiting,
            "done": context["progress"]["done"],
            "total": context["progress"]["total"],
            "categories": [{"index": c["index"], "name": c["name"]} for c in categories],
            "rules": {
                "most_named": rules.most_named,
                "sum_limit": rules.sum_limit,
                "ask_impossible": rules.ask_impossible,
                "framing": study.framing,
            },
        },
    }
    return render(request, "annotate/trial.html", context)


def _questionnaire(request: HttpRequest, session: Session, form: QuestionnaireForm) -> HttpResponse:
    context = _context(request, session, form=form, form_action=reverse("questionnaire", args=[session.token]))
    return render(request, "annotate/questionnaire.html", context, status=422 if form.is_bound else 200)


@never_cache
@require_POST
@_with_session
def questionnaire(request: HttpRequest, session: Session) -> HttpResponse:
    if session.status == SessionStatus.QUESTIONNAIRE:
        form = QuestionnaireForm(session.study.questionnaire, request.POST)
        if not form.is_valid():
            return _questionnaire(request, session, form)
        sessions.save_questionnaire(session_id=session.pk, answers=form.cleaned_data, now=timezone.now())
    return redirect("session", session.token)


def _done(request: HttpRequest, session: Session) -> HttpResponse:
    return render(
        request,
        "annotate/done.html",
        _context(request, session, completion_code=session.study.completion_code),
    )


@require_safe
def image(request: HttpRequest, sha256: str, scale: str) -> HttpResponse:
    """An image, enlarged. Its address is the hash of its pixels, so it may be cached for ever."""
    try:
        body = image_store.rendered(sha256, int(scale))
    except FileNotFoundError:
        raise Http404 from None
    return HttpResponse(body, content_type="image/png", headers={"Cache-Control": FOR_EVER})


@require_safe
def front_page(request: HttpRequest) -> HttpResponse:
    """What somebody sees who opens the bare address."""
    return _message(
        request,
        "Elicit",
        "To take part in a study, open the link that you were sent.",
        200,
        action={"label": "Sign in as a curator", "url": reverse("admin:index")},
    )
