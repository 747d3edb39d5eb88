"""The annotator's pages, from consent to thanks, and the way out. Each survives a reload."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from functools import wraps
from typing import Any
from urllib.parse import urlencode

import numpy as np
from django import forms
from django.conf import settings
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.html import json_script
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_http_methods, require_safe

from annotations import image_store, languages, selectors
from annotations.assignment import draw_category_order
from annotations.errors import AnnotationError
from annotations.links import answer_json, trial_json
from annotations.models import (
    Consent,
    Framing,
    Outcome,
    Platform,
    Recruitment,
    Response,
    Session,
    SessionStatus,
    Study,
    Trial,
)
from annotations.questionnaire import ComprehensionForm, QuestionnaireForm
from annotations.recruitment import NotAdmitted, Visit, adapter
from annotations.selectors import recruitment as recruited
from annotations.services import leaving, recruitment, sessions
from annotations.shared_pages import kept, render_shared
from annotations.texts import study_html
from elicit import handing_over, logs
from elicit.handing_over import has_it
from elicit.labels.diagnostics import Thresholds

COOKIE_DAYS = 30
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


def _shared_page(
    request: HttpRequest,
    template: str,
    study: Study,
    shared: dict[str, Any],
    own: dict[str, object],
    *,
    session: Session | None = None,
    status: int = 200,
) -> HttpResponse:
    """As `_page`, for the pages that a crowd opens at once; of `shared` and `own` see `render_shared`."""
    shared = {
        "study": {"name": study.name},
        "languages": [asdict(choice) for choice in languages.choices(study)],
        **shared,
    }
    own = {"here": request.get_full_path(), **own}
    if session is not None:
        shared["session"] = {"status": session.status}
        own |= {"session.token": session.token, "personal_link": _personal_link(request, session)}
    return HttpResponse(render_shared(request, f"annotate/{template}.html", shared, own), status=status)


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
    "other_browser": (
        _lazy("You have begun already"),
        _lazy(
            "This link was opened in another browser or on another device before. Please go on there, or open the "
            "personal link that was shown to you there: it works everywhere. If that was not you, or you can’t find "
            "it, write to whoever sent you the link."
        ),
    ),
    "invitation_unknown": (
        _lazy("This invitation is not known"),
        _lazy("Please check that you copied all of the link that you were sent."),
    ),
    "invitation_void": (
        _lazy("This invitation is no longer valid"),
        _lazy("It has run out or was withdrawn. Whoever sent it to you can send you another."),
    ),
    "submission_unknown": (
        _lazy("We could not match your submission"),
        _lazy("Please open the study from the platform again, signed in as yourself."),
    ),
    "submission_over": (
        _lazy("This submission has ended"),
        _lazy("It was returned or closed on the platform, so nothing can be added to it. Thank you for your interest."),
    ),
}
# What a link lacks; the reader came by it, and did nothing wrong.
NOT_ADMITTED = {
    "missing": (
        _lazy("Please open this study from {platform}"),
        _lazy("The link that you opened lacks what {platform} adds to it, so your work could not be counted there."),
    ),
    "malformed": (
        _lazy("This link is damaged"),
        _lazy("Part of it is missing or was changed. Please open the study from {platform} again."),
    ),
    "elsewhere": (
        _lazy("This study does not take people from there"),
        _lazy("The link belongs to another platform, where your work could not be counted. Nothing was begun."),
    ),
    "other_study": (
        _lazy("This link belongs to another study"),
        _lazy("Please open the study from {platform} again, and tell its researchers if you see this once more."),
    ),
    "preview": (
        _lazy("This is a preview"),
        _lazy("The link works. People who come from {platform} see the study’s first page here."),
    ),
}
FULL_MEANWHILE = _lazy(
    "While you were reading and practising, others took the last places. That is not your fault: thank you for your "
    "time. Should a place become free again, this page lets you go on."
)


WITHOUT_A_PLACE = ("study_full", "study_not_live", "place_given_away")


def _stopped(
    request: HttpRequest, error: AnnotationError, study: Study, session: Session | None = None, *, came: bool = False
) -> HttpResponse:
    """Why it does not go on. Those who `came` from a platform and find no place are told its code for that."""
    title, text = STOPS.get(error.code, (_("That did not work"), error.message))
    context: dict[str, Any] = {"study": study}
    if error.code in WITHOUT_A_PLACE and (came or session is not None):
        context["departure"] = recruited.departure(study, Outcome.NO_PLACE)
    if session is not None:
        context |= {"session": session, "personal_link": _personal_link(request, session)}
        if error.code == "study_full":
            text = FULL_MEANWHILE
    return _message(request, str(title), str(text), 409, **context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def study_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The link that a curator shares. Shows the consent text; agreeing makes a session."""
    study = selectors.launched_study(slug)
    if study is None:
        return _unknown_link(request)
    languages.speak(request, study)
    now = timezone.now()
    recruiting = study.recruiting
    try:
        visit = adapter(recruiting.platform).read(request.GET, recruiting)
        door = recruitment.come_to_the_door(study, visit, remembered=_remembered(request, study), now=now)
    except NotAdmitted as problem:
        return _not_admitted(request, study, problem.code)
    except AnnotationError as error:
        return _stopped(request, error, study)
    if door.session:
        return _at_home(door.session)
    came = visit.platform != Platform.OPEN
    form = ConsentForm(request.POST) if request.method == "POST" else None
    refused = ""
    if form is not None and form.is_valid():
        try:
            session = recruitment.admit(
                study=study,
                visit=visit,
                heard=door.heard,
                consent_version=form.cleaned_data["version"],
                now=now,
                rng=np.random.default_rng(),
            )
        except AnnotationError as error:
            if error.code != "consent_missing":
                return _stopped(request, error, study, came=came)
            refused = error.message
        else:
            return _at_home(session)
    if code := selectors.why_shut(study):
        return _stopped(request, AnnotationError(code, code), study, came=came)
    consent = selectors.current_consent(study)
    if consent is None:
        raise Http404
    if form is None:
        form = ConsentForm(initial={"version": consent.version})
    elif refused:
        form = ConsentForm({"version": consent.version})
        form.errors["agree"] = form.error_class([refused])
    return _shared_page(
        request,
        "consent",
        study,
        {
            "consent": {"title": _consent_title(consent), "version": consent.version},
            "time_estimate": study.time_estimate,
            "pay_note": study.pay_note,
            "pay": _pay(recruiting),
        },
        {
            "consent.html": study_html(consent.text, study),
            "fields": _consent_fields(form),
            "no_thanks": _no_thanks(request, visit, recruiting),
        },
        status=422 if form.is_bound else 200,
    )


def _consent_fields(form: ConsentForm) -> SafeString:
    if form.is_bound:
        return render_to_string("annotate/_fields.html", {"form": form})
    return _empty_consent_fields(form.initial["version"], translation.get_language())


@kept(256)
def _empty_consent_fields(version: int, language: str) -> SafeString:
    return render_to_string("annotate/_fields.html", {"form": ConsentForm(initial={"version": version})})


def _at_home(session: Session) -> HttpResponse:
    """To where the session stands, in a browser that is known from now on."""
    response = redirect("session", session.token)
    _remember(response, session)
    return response


def _not_admitted(request: HttpRequest, study: Study, code: str) -> HttpResponse:
    if code == "preview" and request.user.has_perm("annotations.view_study"):
        return redirect("admin:annotations_study_preview", study.pk, "consent")
    recruiting = study.recruiting
    if recruiting.platform == Platform.OPEN and code == "malformed":
        return _unknown_link(request)
    title, text = NOT_ADMITTED[code]
    if recruiting.platform == Platform.INVITATION and code in ("missing", "malformed"):
        title, text = STOPS["invitation_unknown"]
    platform = recruiting.get_platform_display()
    shown = str(title).format(platform=platform), str(text).format(platform=platform)
    return _message(request, *shown, 200 if code == "preview" else 400, study=study)


def _no_thanks(request: HttpRequest, visit: Visit, recruiting: Recruitment) -> str:
    """The way out for whoever does not agree, where the platform wants to hear of it."""
    if not recruiting.code(Outcome.NO_CONSENT) and visit.platform != Platform.PROLIFIC:
        return ""
    return f"{reverse('no-thanks', args=[recruiting.study.slug])}?{request.GET.urlencode()}"


@never_cache
@require_safe
def no_thanks(request: HttpRequest, slug: str) -> HttpResponse:
    """What those see who do not agree: nothing was stored of them, and how to tell the platform."""
    study = selectors.launched_study(slug)
    if study is None:
        return _unknown_link(request)
    languages.speak(request, study)
    recruiting = study.recruiting
    try:
        adapter(recruiting.platform).read(request.GET, recruiting)
    except NotAdmitted as problem:
        return _not_admitted(request, study, problem.code)
    text = _("Thank you for looking. Nothing of yours was stored, and saying no has no consequences for you.")
    departure = recruited.departure(study, Outcome.NO_CONSENT)
    if recruiting.platform == Platform.PROLIFIC and not departure.code:
        text += " " + _("Please return your submission on Prolific, so that somebody else can take the place.")
    return _message(request, _("You chose not to take part"), text, 200, study=study, departure=departure)


def _pay(recruiting: Recruitment) -> dict[str, str] | None:
    """What is promised, for the pages before the work; None where nothing is."""
    if not (recruiting.base_minor or recruiting.bonus_most_minor):
        return None
    return {
        "base": recruited.money(recruiting.base_minor, recruiting.currency) if recruiting.base_minor else "",
        "bonus": recruited.money(recruiting.bonus_most_minor, recruiting.currency)
        if recruiting.bonus_most_minor
        else "",
        "rule": recruiting.bonus_rule,
    }


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


def _remembered(request: HttpRequest, study: Study) -> Session | None:
    """The session of this browser."""
    try:
        token = request.get_signed_cookie(_cookie(study), default="")
    except signing.BadSignature:
        return None
    session = selectors.session_by_token(token) if token else None
    return session if session is not None and session.study_id == study.pk else None


SessionView = Callable[[HttpRequest, Session], HttpResponse]


def _with_session(view: SessionView) -> Callable[[HttpRequest, str], HttpResponse]:
    """Find the session of the link, let it come back if it was given up, and note the sign of life."""

    @wraps(view)
    def wrapped(request: HttpRequest, token: str) -> HttpResponse:
        session = selectors.session_by_token(token)
        if session is None:
            return _unknown_link(request)
        logs.of_session(session.pk)
        languages.speak(request, session.study)
        try:
            session = sessions.wake(session, timezone.now())
        except AnnotationError as error:
            return _stopped(request, error, session.study, session)
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
            departure = recruited.departure(session.study, Outcome.SCREENED_OUT)
            return _page(request, "screened_out", _context(request, session, departure=departure, code=departure.code))
        case SessionStatus.WITHDRAWN:
            departure = recruited.departure(session.study, recruited.outcome_of(session))
            return _page(request, "withdrawn", {"study": session.study, "session": session, "departure": departure})
        case _:
            return _done(request, session)


def _context(request: HttpRequest, session: Session, **context: Any) -> dict[str, Any]:
    """What a session's page shows whatever its step."""
    done, total = selectors.trial_counts(session)
    progress = {"done": done, "total": total, "percent": _percent(done, total)} if total else None
    return {
        "study": session.study,
        "personal_link": _personal_link(request, session),
        "progress": progress,
        "session": session,
        **context,
    }


def _percent(done: int, total: int) -> int:
    return round(100 * done / total)


def _personal_link(request: HttpRequest, session: Session) -> str:
    return request.build_absolute_uri(reverse("session", args=[session.token]))


def _instructions(request: HttpRequest, session: Session) -> HttpResponse:
    study = session.study
    return _shared_page(
        request,
        "instructions",
        study,
        {
            "study": {"name": study.name, "comprehension": bool(study.comprehension)},
            "trial_count": selectors.trials_in_session(study) // len(Framing(study.framing).asked),
            "questions": len(Framing(study.framing).asked),
            "practice_count": len(study.practice),
            "pay": _pay(study.recruiting),
        },
        {
            "instructions_html": study_html(study.instructions, study),
            "form_action": reverse("leave-instructions", args=[session.token]),
        },
        session=session,
    )


@_step
def leave_instructions(request: HttpRequest, session: Session) -> HttpResponse:
    sessions.leave_instructions(session_id=session.pk, now=timezone.now(), rng=np.random.default_rng())
    return redirect("session", session.token)


def _trial(request: HttpRequest, session: Session) -> HttpResponse:
    study = session.study
    practising = session.status == SessionStatus.PRACTICE
    names = selectors.category_names(study)
    step = selectors.step_of(session)
    waiting = [trial_json(trial, study) for trial in step.waiting]
    if not waiting:
        if practising:
            return _practised(request, session)
        return redirect("session", session.token)  # the last answer came in while this page was being made
    return _trial_page(
        request,
        study,
        names,
        session.category_order,
        waiting,
        session=session,
        api="/api/trials/{trial}/responses/{response}",
        skip_api="/api/trials/{trial}/skip",
        authorization=f"Session {session.token}",
        next_url=reverse("session", args=[session.token]),
        stage="practice" if practising else "trials",
        answered=[
            {**trial_json(trial, study), "response": _said(response)}
            for trial, response in selectors.open_to_correction(step)
        ],
        done=step.done,
        total=step.total,
        back=step.steps_back,
        break_every=None if practising else study.break_every,
    )


def _trial_page(
    request: HttpRequest,
    study: Study,
    names: list[str],
    order: list[int],
    waiting: list[dict[str, Any]],
    *,
    session: Session | None,
    **told: Any,
) -> HttpResponse:
    """The trial screen: categories in this order, the trials that are waiting, and the study's rules. A preview where
    there is no session. Of `told` the page's script learns as well."""
    answers = answer_json(study, names, order)
    # A preview's is its own: nothing waits in the browser from the one before.
    data = {
        "trials": waiting,
        **answers,
        "input": study.input_mode,
        "impossible_shortcut": study.ask_impossible and study.impossible_shortcut,
        "seconds_floor": Thresholds().fastest_ms / 1000,
        "session": str(uuid.uuid4() if session is None else session.pk),
        **told,
    }
    current, rules = waiting[0], answers["rules"]
    said = len(names), study.input_mode, rules["most_named"] != 1, rules["ask_impossible"], translation.get_language()
    rows = (_row(place, each["index"], each["name"], *said) for place, each in enumerate(answers["categories"], 1))
    shared = {
        "preview": session is None,
        "stage": data["stage"],
        "framing": current["framing"],
        "count": len(names),
        "rules": rules,
        "input": study.input_mode,
        "shortcut": data["impossible_shortcut"],
    }
    own = {
        "progress.done": data["done"],
        "progress.total": data["total"],
        "progress.percent": _percent(data["done"], data["total"]),
        "note": current["note"],
        "image_url": current["image_url"],
        "rows": mark_safe("".join(rows)),  # noqa: S308 (templates')
        "trial_data": json_script(data, "trial-data"),
    }
    return _shared_page(request, "trial", study, shared, own, session=session)


@kept(2000)
def _row(
    place: int, index: int, name: str, count: int, kind: str, plausible: bool, impossible: bool, language: str
) -> SafeString:
    """A category's row: of ten categories in ten places, for twenty studies at a time."""
    # As frontend/static/annotate/keys.js has them.
    keys = ("QWERTYUIOP"[place - 1], "ASDFGHJKL;"[place - 1]) if count <= 10 else ("", "")
    context = {"place": place, "index": index, "name": name, "count": count, "input": kind}
    if plausible:
        context["plausible"] = {"key": keys[0]}
    if impossible:
        context["impossible"] = {"key": keys[1]}
    return render_to_string("annotate/_trial_row.html", context)


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
    # Whoever comes back later, say to withdraw, is not sent away again.
    fresh = session.completed_at is not None and timezone.now() - session.completed_at < RETURN_BY_ITSELF
    departure = recruited.departure(session.study, recruited.outcome_of(session), session.participant.platform_id)
    context = _context(
        request,
        session,
        completion_code=departure.code,
        return_url=departure.url,
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
    logs.of_session(session.pk)
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


PREVIEWS = ("consent", "instructions", "comprehension", "trial", "questionnaire", "done", "screened_out")
PREVIEW_IMAGES = 4


def preview_trials(request: HttpRequest, study: Study, api: str, following: str) -> HttpResponse:
    """The trial screen on some of the study's images, working as it does for annotators. What it sends to `api` (with
    {trial} and {response} to be filled in) is to be answered and forgotten."""
    languages.speak(request, study)
    names = selectors.category_names(study)
    rng = np.random.default_rng()
    asked = Framing(study.framing).asked
    trials = [
        Trial(image=image, position=number, framing=framing)
        for number, (image, framing) in enumerate(
            ((image, framing) for image in selectors.some_images(study, PREVIEW_IMAGES) for framing in asked), 1
        )
    ]
    if not trials:
        return _message(request, _("Images"), _("The study has no images yet."), 200, study=study, preview=True)
    return _trial_page(
        request,
        study,
        names,
        draw_category_order(len(names), rng, shuffle=study.shuffle_categories),
        [trial_json(trial, study) for trial in trials],
        session=None,
        api=api,
        skip_api=api.replace("{response}", str(uuid.uuid4())),
        authorization="Preview",
        next_url=following,
        stage="trials",
        answered=[],
        done=0,
        total=len(trials),
        back=selectors.MOST_STEPS_BACK,
        break_every=study.break_every,
    )


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
            "fields": _consent_fields(ConsentForm(initial={"version": consent.version if consent else 0})),
            "time_estimate": study.time_estimate,
            "pay_note": study.pay_note,
            "pay": _pay(recruited.of_study(study)),
        },
        "instructions": lambda: {
            "trial_count": selectors.trials_in_session(study) // asked,
            "questions": asked,
            "practice_count": len(study.practice),
            "pay": _pay(recruited.of_study(study)),
        },
        "comprehension": lambda: {"form": ComprehensionForm(study.comprehension, initial={"_attempt": 0})},
        "questionnaire": lambda: {"form": QuestionnaireForm(study.questionnaire)},
        "done": lambda: {
            "completion_code": recruited.departure(study, Outcome.COMPLETED).code,
            "return_url": recruited.departure(study, Outcome.COMPLETED).url,
        },
        "screened_out": lambda: {"code": recruited.departure(study, Outcome.SCREENED_OUT).code},
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
    headers = {"Content-Type": "image/png", "Cache-Control": FOR_EVER, "ETag": f'"{sha256}-{scale}x"'}
    try:
        if has_it(request, headers["ETag"]) and image_store.has(sha256):
            del headers["Content-Type"]
            return HttpResponseNotModified(headers=headers)
        if handing_over.is_on():
            path = image_store.rendered_file(sha256, int(scale))
            # The proxy has an ETag of its own.
            del headers["ETag"]
            return handing_over.hand_over(handing_over.RENDERED, path, headers)
        return HttpResponse(image_store.rendered(sha256, int(scale)), headers=headers)
    except FileNotFoundError:
        raise Http404 from None


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
