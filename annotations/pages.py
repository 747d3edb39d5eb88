"""The annotator's pages, from consent to thanks, and the way out. Each survives a reload."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from itertools import repeat
from typing import Any
from urllib.parse import urlencode

import numpy as np
from django import forms
from django.conf import settings
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_http_methods, require_safe

from annotations import image_store, languages, selectors
from annotations.errors import AnnotationError
from annotations.links import trial_json
from annotations.models import Consent, Framing, Response, Session, SessionStatus, Study, StudyStatus
from annotations.questionnaire import ComprehensionForm, QuestionnaireForm
from annotations.return_links import return_url_problem
from annotations.services import leaving, sessions
from annotations.texts import study_html
from elicit.labels.diagnostics import Thresholds

COOKIE_DAYS = 30
LONGEST_PLATFORM_ID = 120
DEFAULT_TITLE = Consent._meta.get_field("title").default
# So long after the end the last page goes back to the recruiting platform by itself.
RETURN_BY_ITSELF = timedelta(minutes=10)
FOR_EVER = "public, max-age=31536000, immutable"


class ConsentForm(forms.Form):
    agree = forms.BooleanField(
        label=_lazy("I have read this, I am at least 18 years old, and I agree to take part."),
        error_messages={"required": _lazy("To take part, please agree first.")},
    )
    version = forms.IntegerField(widget=forms.HiddenInput)


class WithdrawalForm(forms.Form):
    sure = forms.BooleanField(
        label=_lazy("Yes, erase what I gave. I know that this can’t be undone."),
        error_messages={"required": _lazy("Please tick this first: erased answers can’t be brought back.")},
    )


def _page(request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    study, session = context.get("study"), context.get("session")
    posted = request.method == "POST"
    return render(
        request,
        f"annotate/{template}.html",
        {
            "languages": languages.choices(study),
            # Where the page is found again: the address of a form that was sent can't be opened.
            "here": reverse("session", args=[session.token]) if posted and session else request.get_full_path(),
            **context,
        },
        status=status,
    )


def _message(request: HttpRequest, title: str, text: str, status: int, **context: Any) -> HttpResponse:
    return _page(request, "message", {"title": title, "text": text, **context}, status)


def _unknown_link(request: HttpRequest) -> HttpResponse:
    languages.speak(request)
    text = _("Please check that you copied all of it, or open the study's link again.")
    return _message(request, _("This link is not known"), text, 404)


STOPS = {
    "study_full": (
        _lazy("This study is complete"),
        _lazy("It has all the annotators that it needs just now. Thank you for your interest."),
    ),
    "study_not_live": (_lazy("This study is not open"), _lazy("It takes no new annotators at the moment.")),
    "place_given_away": (
        _lazy("Your place was given to somebody else"),
        _lazy(
            "You were away for a while, and the study has filled up meanwhile. What you answered is kept. Thank you."
        ),
    ),
}
FULL_MEANWHILE = _lazy(
    "While you were reading and practising, others took the last places. That is not your fault: thank you for your "
    "time. Should a place become free again, this page lets you go on."
)


def _stopped(
    request: HttpRequest, error: AnnotationError, study: Study, session: Session | None = None
) -> HttpResponse:
    title, text = STOPS.get(error.code, (_("That did not work"), error.message))
    context: dict[str, Any] = {"study": study}
    if session is not None:
        context |= {"session": session, "personal_link": _personal_link(request, session)}
        if error.code == "study_full":
            text = FULL_MEANWHILE
    return _message(request, str(title), str(text), 409, **context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def study_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The link that a curator shares. Shows the consent text; agreeing makes a session."""
    study = Study.objects.select_related("dataset").exclude(status=StudyStatus.DRAFT).filter(slug=slug).first()
    platform_id = request.GET.get("pid", "")
    # Cut short, two people's ids could become one; and PostgreSQL stores no NUL.
    if study is None or len(platform_id) > LONGEST_PLATFORM_ID or "\0" in platform_id:
        return _unknown_link(request)
    languages.speak(request, study)
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
    return _page(
        request,
        "consent",
        {
            "study": study,
            "consent": {
                "title": _consent_title(consent),
                "html": study_html(consent.text, study),
                "version": consent.version,
            },
            "form": form,
            "time_estimate": study.time_estimate,
            "pay_note": study.pay_note,
        },
        422 if form.is_bound else 200,
    )


def _consent_title(consent: Consent) -> str:
    """What a curator did not write speaks the page's language."""
    return _("Before you begin") if consent.title == DEFAULT_TITLE else consent.title


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
        languages.speak(request, session.study)
        now = timezone.now()
        if session.status == SessionStatus.ABANDONED:
            try:
                session = sessions.come_back(session_id=session.pk, now=now)
            except AnnotationError as error:
                return _stopped(request, error, session.study, session)
        sessions.saw(session, now)
        return view(request, session)

    return wrapped


def _step(view: SessionView) -> Callable[[HttpRequest, str], HttpResponse]:
    """The form of one of a session's steps. Opened as a link, its address leads to where the session stands."""

    @wraps(view)
    def wrapped(request: HttpRequest, session: Session) -> HttpResponse:
        if request.method != "POST":
            return redirect("session", session.token)
        try:
            return view(request, session)
        except AnnotationError as error:
            return _stopped(request, error, session.study, session)

    return never_cache(require_http_methods(["GET", "HEAD", "POST"])(_with_session(wrapped)))


# Nobody can have this page sent with text of their own in it but who knows its secret address, so that its compressed
# length tells nothing; Django pads it as well.
@gzip_page
@never_cache
@require_safe
@_with_session
def session_page(request: HttpRequest, session: Session) -> HttpResponse:
    """Where the session stands: one address for all of its steps."""
    match session.status:
        case SessionStatus.INSTRUCTIONS:
            return _instructions(request, session)
        case SessionStatus.PRACTICE | SessionStatus.TRIALS:
            return _trial(request, session)
        case SessionStatus.COMPREHENSION:
            form = ComprehensionForm(session.study.comprehension, initial=_attempt(session))
            return _comprehension(request, session, form)
        case SessionStatus.QUESTIONNAIRE:
            return _questionnaire(request, session, QuestionnaireForm(session.study.questionnaire))
        case SessionStatus.SCREENED_OUT:
            return _page(request, "screened_out", _context(request, session, code=session.study.screenout_code))
        case SessionStatus.WITHDRAWN:
            return _page(request, "withdrawn", {"study": session.study, "session": session})
        case _:
            return _done(request, session)


def _context(request: HttpRequest, session: Session, **context: Any) -> dict[str, Any]:
    done, total = selectors.trial_counts(session)
    progress = {"done": done, "total": total, "percent": round(100 * done / total)} if total else None
    return {
        "study": session.study,
        "personal_link": _personal_link(request, session),
        "progress": progress,
        "session": session,
        **context,
    }


def _personal_link(request: HttpRequest, session: Session) -> str:
    return request.build_absolute_uri(reverse("session", args=[session.token]))


def _instructions(request: HttpRequest, session: Session) -> HttpResponse:
    study = session.study
    context = _context(
        request,
        session,
        instructions_html=study_html(study.instructions, study),
        trial_count=selectors.trials_in_session(study) // len(Framing(study.framing).asked),
        questions=len(Framing(study.framing).asked),
        practice_count=len(study.practice),
        form_action=reverse("leave-instructions", args=[session.token]),
    )
    return _page(request, "instructions", context)


@_step
def leave_instructions(request: HttpRequest, session: Session) -> HttpResponse:
    sessions.leave_instructions(session_id=session.pk, now=timezone.now(), rng=np.random.default_rng())
    return redirect("session", session.token)


def _trial(request: HttpRequest, session: Session) -> HttpResponse:
    study = session.study
    practising = session.status == SessionStatus.PRACTICE
    names = selectors.category_names(study)
    waiting = [trial_json(trial, study) for trial in selectors.open_trials(session)]
    if not waiting:
        if practising:
            return _practised(request, session)
        return redirect("session", session.token)  # the last answer came in while this page was being made
    context = _context(request, session)
    rules = selectors.answer_rules(study, len(names))
    categories = [{"index": index, "name": names[index]} for index in session.category_order]
    # As frontend/static/annotate/keys.js has them.
    letters = zip("QWERTYUIOP", "ASDFGHJKL;", strict=True) if len(names) <= 10 else repeat(())
    context |= {
        "categories": [{**category, "keys": keys} for category, keys in zip(categories, letters, strict=False)],
        "current": waiting[0],
        "trial_data": {
            "api": "/api/trials/{trial}/responses/{response}",
            "skip_api": "/api/trials/{trial}/skip",
            "authorization": f"Session {session.token}",
            "next_url": reverse("session", args=[session.token]),
            "session": str(session.pk),
            "stage": "practice" if practising else "trials",
            "trials": waiting,
            "answered": [
                {**trial_json(trial, study), "response": _said(response)}
                for trial, response in selectors.answered_trials(session)
            ],
            "done": context["progress"]["done"],
            "total": context["progress"]["total"],
            "back": selectors.steps_back(session),
            "categories": categories,
            "rules": {
                "most_named": rules.most_named,
                "sum_limit": rules.sum_limit,
                "ask_impossible": rules.ask_impossible,
            },
            "input": study.input_mode,
            "impossible_shortcut": study.ask_impossible and study.impossible_shortcut,
            "break_every": None if practising else study.break_every,
            "seconds_floor": Thresholds().fastest_ms / 1000,
        },
    }
    return _page(request, "trial", context)


def _said(response: Response) -> dict[str, Any]:
    return {
        "id": str(response.pk),
        "named": [{"category": category, "percentage": percentage} for category, percentage in response.named],
        "impossible": response.impossible,
    }


def _practised(request: HttpRequest, session: Session) -> HttpResponse:
    context = _context(
        request,
        session,
        comes_next="comprehension" if session.study.comprehension else "trials",
        form_action=reverse("leave-practice", args=[session.token]),
    )
    return _page(request, "practised", context)


@_step
def leave_practice(request: HttpRequest, session: Session) -> HttpResponse:
    sessions.leave_practice(session_id=session.pk, now=timezone.now(), rng=np.random.default_rng())
    return redirect("session", session.token)


def _attempt(session: Session) -> dict[str, int]:
    return {"_attempt": session.comprehension_attempts}


def _comprehension(request: HttpRequest, session: Session, form: ComprehensionForm) -> HttpResponse:
    study = session.study
    told = set(request.GET.getlist("again"))
    context = _context(
        request,
        session,
        form=form,
        again=session.comprehension_attempts > 0,
        wrong=[question["question"] for question in study.comprehension if question["name"] in told],
        instructions_html=study_html(study.instructions, study),
        form_action=reverse("comprehension", args=[session.token]),
    )
    return _page(request, "comprehension", context, 422 if form.is_bound else 200)


@_step
def comprehension(request: HttpRequest, session: Session) -> HttpResponse:
    here = reverse("session", args=[session.token])
    if session.status != SessionStatus.COMPREHENSION:
        return redirect(here)
    form = ComprehensionForm(session.study.comprehension, request.POST)
    if not form.is_valid():
        if "_attempt" in form.errors:
            return redirect(here)
        return _comprehension(request, session, form)
    session, wrong = sessions.check_comprehension(
        session_id=session.pk,
        attempt=form.cleaned_data["_attempt"],
        answers=form.answers,
        now=timezone.now(),
        rng=np.random.default_rng(),
    )
    again = wrong if session.status == SessionStatus.COMPREHENSION else []
    return redirect(f"{here}?{urlencode({'again': again}, doseq=True)}" if again else here)


def _questionnaire(request: HttpRequest, session: Session, form: QuestionnaireForm) -> HttpResponse:
    context = _context(request, session, form=form, form_action=reverse("questionnaire", args=[session.token]))
    return _page(request, "questionnaire", context, 422 if form.is_bound else 200)


@_step
def questionnaire(request: HttpRequest, session: Session) -> HttpResponse:
    if session.status == SessionStatus.QUESTIONNAIRE:
        form = QuestionnaireForm(session.study.questionnaire, request.POST)
        if not form.is_valid():
            return _questionnaire(request, session, form)
        sessions.save_questionnaire(session_id=session.pk, answers=form.cleaned_data, now=timezone.now())
    return redirect("session", session.token)


def _done(request: HttpRequest, session: Session) -> HttpResponse:
    study = session.study
    # Whoever comes back later, say to withdraw, is not sent away again.
    fresh = session.completed_at is not None and timezone.now() - session.completed_at < RETURN_BY_ITSELF
    context = _context(
        request,
        session,
        completion_code=study.completion_code,
        return_url="" if return_url_problem(study.return_url) else study.return_url,
        return_by_itself=fresh,
    )
    return _page(request, "done", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def withdraw(request: HttpRequest, token: str) -> HttpResponse:
    """Ask whether somebody wants to take back what they gave, at whatever step they are, and do it."""
    session = selectors.session_by_token(token)
    if session is None:
        return _unknown_link(request)
    languages.speak(request, session.study)
    form = WithdrawalForm(request.POST if request.method == "POST" else None)
    if session.status == SessionStatus.WITHDRAWN:
        return redirect("session", token)
    if form.is_bound and form.is_valid():
        try:
            leaving.withdraw(session_id=session.pk, now=timezone.now())
        except AnnotationError as error:
            if error.code != "already_withdrawn":  # the button was pressed twice
                raise
        return redirect("session", token)
    context = _context(
        request,
        session,
        form=form,
        completed=session.status == SessionStatus.COMPLETED,
        back=reverse("session", args=[token]),
    )
    return _page(request, "withdraw", context, 422 if form.is_bound else 200)


PREVIEWS = ("consent", "instructions", "comprehension", "questionnaire", "done", "screened_out")


def preview(request: HttpRequest, study: Study, step: str, following: str) -> HttpResponse:
    """A step as annotators see it, for the curator; its form leads to `following` and nothing is stored.

    Raises:
        KeyError: no such step.
    """
    languages.speak(request, study)
    consent = selectors.current_consent(study)
    asked = len(Framing(study.framing).asked)
    contexts: dict[str, Callable[[], dict[str, Any]]] = {
        "consent": lambda: {
            "consent": {
                "title": _consent_title(consent),
                "html": study_html(consent.text, study),
                "version": consent.version,
            }
            if consent
            else {},
            "form": ConsentForm(initial={"version": consent.version if consent else 0}),
            "time_estimate": study.time_estimate,
            "pay_note": study.pay_note,
        },
        "instructions": lambda: {
            "trial_count": selectors.trials_in_session(study) // asked,
            "questions": asked,
            "practice_count": len(study.practice),
        },
        "comprehension": lambda: {"form": ComprehensionForm(study.comprehension, initial={"_attempt": 0})},
        "questionnaire": lambda: {"form": QuestionnaireForm(study.questionnaire)},
        "done": lambda: {
            "completion_code": study.completion_code,
            "return_url": "" if return_url_problem(study.return_url) else study.return_url,
        },
        "screened_out": lambda: {"code": study.screenout_code},
    }
    context = {
        "study": study,
        "preview": True,
        "form_action": following,
        "instructions_html": study_html(study.instructions, study),
        **contexts[step](),
    }
    return _page(request, step, context)


@require_safe
def image(request: HttpRequest, sha256: str, scale: str) -> HttpResponse:
    """An image, enlarged. Its address is the hash of its pixels, so it may be cached for ever."""
    try:
        body = image_store.rendered(sha256, int(scale))
    except FileNotFoundError:
        raise Http404 from None
    return HttpResponse(body, content_type="image/png", headers={"Cache-Control": FOR_EVER})


@never_cache
@require_safe
def front_page(request: HttpRequest) -> HttpResponse:
    """What somebody sees who opens the bare address."""
    languages.speak(request)
    return _message(
        request,
        "Elicit",
        _("To take part in a study, open the link that you were sent."),
        200,
        action={"label": _("Sign in as a curator"), "url": reverse("admin:index")},
    )
