"""The tab "People": where annotators come from, who came, and what they are paid."""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import segno
from django import forms
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from annotations import audit
from annotations.admin.study_pages import StudyPage
from annotations.admin.tables import plain_cell
from annotations.kinds import PAY_STUDY, POLL_PLATFORM
from annotations.models import (
    Outcome,
    Payment,
    PaymentKind,
    PaymentState,
    Platform,
    Recruitment,
    Session,
    SessionStatus,
    Study,
)
from annotations.recruitment import adapter, prolific_api
from annotations.return_links import return_url_problem
from annotations.selectors import bonus
from annotations.selectors import recruitment as recruited
from annotations.services import payments, recruitment
from elicit.labels.errors import Refusal
from jobs.models import Job, Status
from jobs.services import enqueue

MOST_INVITATIONS = 500
SHOWN = 100
# Prolific's minimum, in minor units an hour.
LEAST_HOURLY = {"GBP": 600, "USD": 800}
MAY_PAY = "annotations.pay_annotators"
MAY_SEE_IDS = "annotations.view_platform_id"

CODES = ("completed", "screened_out", "no_place", "no_consent", "failed_attention")
# What Prolific shall do with each code, in the words of its study form.
ACTIONS = {
    "completed": "Approve automatically, or review manually if you want to look first",
    "screened_out": "Screen out with a fixed payment; without that feature: request a return",
    "no_place": "Request a return",
    "no_consent": "Request a return",
    "failed_attention": "Review manually",
}


class Amount(forms.DecimalField):
    """A sum of money as people write it; cleaned to minor units."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": 0, "max_value": 10_000, "decimal_places": 2, **options})
        self.widget.attrs.update({"inputmode": "decimal", "step": "0.01"})

    def prepare_value(self, value: Any) -> Any:
        return f"{value / 100:.2f}" if isinstance(value, int) else value

    def clean(self, value: Any) -> int:
        cleaned: Decimal | None = super().clean(value)
        return int((cleaned or Decimal(0)) * 100)


class TermsForm(forms.ModelForm[Recruitment]):
    """Where a study recruits and what it pays."""

    base_minor = Amount(label="base pay", required=False, help_text="For everybody who completes.")
    screenout_minor = Amount(
        label="pay of those screened out", required=False, help_text="For their time up to the comprehension check."
    )
    bonus_most_minor = Amount(
        label="most bonus", required=False, help_text="0: no bonus. The pages tell annotators of it before they agree."
    )
    completion_url = forms.URLField(
        label="link back",
        required=False,
        assume_scheme="https",
        help_text="Connect: its completion link. SONA: its client-side completion URL. Prolific needs none.",
    )

    class Meta:
        model = Recruitment
        fields = (
            "platform", "platform_study", "completion_url", *(f"code_{code}" for code in CODES),
            "currency", "base_minor", "screenout_minor", "expected_minutes", "bonus_most_minor", "bonus_rule",
            "fee_share",
        )  # fmt: skip

    PLACE = ("platform", "platform_study", "completion_url")
    PAY = (
        "currency", "base_minor", "screenout_minor", "expected_minutes", "bonus_most_minor", "bonus_rule", "fee_share",
    )  # fmt: skip

    def clean_completion_url(self) -> str:
        url = str(self.cleaned_data["completion_url"])
        if url and (problem := return_url_problem(url)):
            raise ValidationError(problem)
        return url

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        codes = [data.get(f"code_{code}") for code in CODES if data.get(f"code_{code}")]
        if len(set(codes)) < len(codes):
            raise ValidationError("Each outcome needs a code of its own.")
        return data

    def group(self, names: Sequence[str]) -> list[forms.BoundField]:
        return [self[name] for name in names]


class InvitationsForm(forms.Form):
    """How many invitations, or one for each line."""

    labels = forms.CharField(
        label="for whom",
        required=False,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="One a line: a name or number that you will recognise. Annotators never see it.",
    )
    count = forms.IntegerField(
        label="or how many", required=False, min_value=1, max_value=MOST_INVITATIONS, help_text="Without labels."
    )
    days = forms.IntegerField(label="valid for days", required=False, min_value=1, max_value=365, initial=30)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        labels = [line.strip()[:80] for line in data.get("labels", "").splitlines() if line.strip()]
        if len(labels) > MOST_INVITATIONS:
            raise ValidationError(f"At most {MOST_INVITATIONS} at a time.")
        data["labels"] = labels or [""] * (data.get("count") or 0)
        if not data["labels"]:
            raise ValidationError("Say for whom, or how many.")
        return data


class PeoplePage(StudyPage):
    key = "people"
    title = "People"
    template = "admin/annotations/study/people.html"
    permission = "annotations.view_recruitment"
    change_permission = "annotations.change_recruitment"

    def more_urls(self) -> Sequence[URLPattern]:
        def at(end: str, view: Callable[..., HttpResponse], name: str) -> URLPattern:
            url: URLPattern = path(f"<int:pk>/people/{end}", self.view(view), name=f"annotations_study_people_{name}")
            return url

        return [
            at("invitations", self.invitations, "invitations"),
            at("pay", self.pay, "pay"),
            at("bonus", self.bonus, "bonus"),
            at("payments.csv", self.payments_file, "csv"),
            at("decide/<uuid:session>", self.decide, "decide"),
        ]

    # --- The page

    def context(self, request: HttpRequest, study: Study) -> dict[str, Any]:
        return self._context(request, study, TermsForm(instance=recruited.of_study(study)))

    def _context(self, request: HttpRequest, study: Study, form: TermsForm) -> dict[str, Any]:
        recruiting = recruited.of_study(study)
        now = timezone.now()
        address = request.build_absolute_uri(reverse("study", args=[study.slug]))
        link = adapter(recruiting.platform).link(address)
        cost = recruited.cost_so_far(study)
        currency = recruiting.currency
        hourly = round(recruiting.base_minor * 60 / recruiting.expected_minutes)
        payments_made = study.payments.all()
        return {
            "recruiting": recruiting,
            "form": form,
            "place_fields": form.group(TermsForm.PLACE),
            "code_fields": form.group([f"code_{code}" for code in CODES]),
            "pay_fields": form.group(TermsForm.PAY),
            "steps_template": f"admin/annotations/study/people/{recruiting.platform}.html",
            "link": link,
            "qr": segno.make(address, error="m").svg_data_uri(scale=4) if recruiting.platform == Platform.OPEN else "",
            "webhook": request.build_absolute_uri(reverse("prolific-webhook")),
            "api": prolific_api.is_configured(),
            "codes": [
                {"outcome": Outcome(code).label, "code": recruiting.code(Outcome(code)), "action": ACTIONS[code]}
                for code in CODES
            ],
            "codes_missing": not all(recruiting.code(Outcome(code)) for code in CODES),
            "hourly": recruited.money(hourly, currency),
            "hourly_low": bool(recruiting.base_minor) and hourly < LEAST_HOURLY.get(currency, 0),
            "least_hourly": recruited.money(LEAST_HOURLY.get(currency, 0), currency),
            "cost": [
                ("Base pay", recruited.money(cost.base_minor, currency)),
                ("Bonuses", recruited.money(cost.bonus_minor, currency)),
                ("Fees", recruited.money(cost.fees_minor, currency)),
                ("In all", recruited.money(cost.total_minor, currency)),
            ],
            "invitations_form": InvitationsForm(),
            "invitations": study.invitations.select_related("used_by__participant").order_by("-pk")[:SHOWN],
            "now": now,
            "arrivals": recruited.arrival_counts(study),
            "discrepancies": recruited.discrepancies(study, now, SHOWN),
            "held_back": study.sessions.filter(
                pk__in=recruited.held_back(study), payments__state=PaymentState.DUE, payments__kind=PaymentKind.BASE
            ).select_related("participant")[:SHOWN],
            "states": [
                (PaymentState(state).label, state, payments_made.filter(state=state).count())
                for state in PaymentState
                if payments_made.filter(state=state).exists()
            ],
            "troubled": payments_made.filter(state__in=[PaymentState.FAILED, PaymentState.UNKNOWN]).select_related(
                "session__participant"
            )[:SHOWN],
            "paying": Job.objects.filter(
                kind=PAY_STUDY, subject=str(study.pk), status__in=[Status.QUEUED, Status.RUNNING]
            ).first(),
            "may_pay": request.user.has_perm(MAY_PAY),
            "may_see_ids": request.user.has_perm(MAY_SEE_IDS),
            "money": lambda amount: recruited.money(amount, currency),
        }

    def post(self, request: HttpRequest, study: Study) -> HttpResponse | None:
        match request.POST.get("do"):
            case "draw":
                terms = {
                    f"code_{code}": _drawn_code() for code in CODES if not recruited.of_study(study).code(Outcome(code))
                }
                recruitment.set_terms(study=study, terms=terms)
                messages.success(request, "Codes were drawn. Enter them on the platform as shown below.")
            case "revoke":
                number = request.POST.get("invitation", "")
                done = number.isdecimal() and recruitment.revoke(
                    invitation_id=int(number), study=study, now=timezone.now()
                )
                if done:
                    messages.success(request, "The invitation is void now.")
                else:
                    messages.error(request, "It was used or void already.")
            case "poll":
                enqueue(POLL_PLATFORM, study.pk)
                messages.success(request, "Prolific is being asked. Reload this page in a moment.")
            case "again":
                self._may_pay(request)
                number = request.POST.get("payment", "")
                payment = get_object_or_404(Payment, pk=int(number) if number.isdecimal() else 0, study=study)
                self._told(request, lambda: payments.order_again(payment_id=payment.pk, by=_who(request)))
                self._log(request, study, f"asked again for payment {payment.pk}")
            case _:
                form = TermsForm(request.POST, instance=recruited.of_study(study))
                if not form.is_valid():
                    return self.render(request, study, self._context(request, study, form), status=422)
                try:
                    recruitment.set_terms(study=study, terms=form.cleaned_data)
                except Refusal as error:
                    form.add_error(None, error.message)
                    for name in error.fields:
                        form.add_error(name, "Promised to people who have begun: it can be raised, but not lowered.")
                    return self.render(request, study, self._context(request, study, form), status=422)
                self._log(request, study, f"recruitment: {', '.join(form.changed_data)}")
                messages.success(request, "Saved.")
        return redirect(self.address(study))

    # --- Invitations

    def invitations(self, request: HttpRequest, study: Study) -> HttpResponse:
        """Make invitations, and hand over their links: this once. One comes with a picture to scan."""
        if request.method != "POST":
            return redirect(self.address(study))
        form = InvitationsForm(request.POST)
        if not form.is_valid():
            context = self._context(request, study, TermsForm(instance=recruited.of_study(study)))
            return self.render(request, study, {**context, "invitations_form": form}, status=422)
        now = timezone.now()
        days = form.cleaned_data["days"]
        expires = now + timedelta(days=days) if days else None
        made = recruitment.invite(study=study, labels=form.cleaned_data["labels"], expires_at=expires, now=now)
        self._log(request, study, f"{len(made)} invitations made")
        address = request.build_absolute_uri(reverse("study", args=[study.slug]))
        links = [(invitation, f"{address}?invitation={token}") for invitation, token in made]
        if len(links) == 1:
            qr = segno.make(links[0][1], error="m").svg_data_uri(scale=5)
            context = {"invitation": links[0][0], "link": links[0][1], "qr": qr}
            return self.render(request, study, context, template="admin/annotations/study/people/one_invitation.html")
        rows = [[each.label, link, "" if expires is None else expires.date().isoformat()] for each, link in links]
        return _csv(f"{study.slug}-invitations.csv", ["for", "link", "valid until"], rows)

    # --- Pay

    def pay(self, request: HttpRequest, study: Study) -> HttpResponse:
        """What is due, what it will cost, and the button that pays it."""
        self._may_pay(request)
        now = timezone.now()
        payments.make_due(study=study, now=now)
        recruiting = recruited.of_study(study)
        by_api = recruiting.platform == Platform.PROLIFIC and prolific_api.is_configured()
        chosen = [kind for kind in PaymentKind if kind in request.POST.getlist("kind")]
        waiting = list(recruited.payable(study).filter(kind__in=chosen).values_list("pk", flat=True))
        if request.method == "POST":
            seen = request.POST.get("count", "")
            if not waiting or seen != str(len(recruited.payable(study))):
                messages.error(request, "What is due has changed meanwhile, or nothing was chosen: please look again.")
                return redirect(request.path)
            if by_api:
                if self._told(request, lambda: payments.order(study=study, payments=waiting, by=_who(request))):
                    messages.success(request, f"{len(waiting)} payments are on their way to Prolific.")
            else:
                reference = request.POST.get("reference", "").strip()[:120]
                count = payments.mark_paid(
                    study=study, payments=waiting, reference=reference, by=_who(request), now=now
                )
                messages.success(request, f"{count} payments are noted as paid.")
            self._log(request, study, f"pay: {len(waiting)} payments, {', '.join(chosen)}")
            return redirect(self.address(study))
        due = recruited.due(study)
        context = {
            "recruiting": recruiting,
            "due": [
                {
                    "kind": each.kind,
                    "label": each.kind.label,
                    "count": each.count,
                    "amount": recruited.money(each.amount_minor, recruiting.currency),
                    "fees": recruited.money(each.fees_minor, recruiting.currency),
                    "total": recruited.money(each.total_minor, recruiting.currency),
                }
                for each in due
            ],
            "total": recruited.money(sum(each.total_minor for each in due), recruiting.currency),
            "count": sum(each.count for each in due),
            "held_back": len(recruited.held_back(study)),
            "by_api": by_api,
            "back": self.address(study),
        }
        return self.render(request, study, context, template="admin/annotations/study/people/pay.html")

    def bonus(self, request: HttpRequest, study: Study) -> HttpResponse:
        """Everybody's bonus as it would be, or as it was fixed; and the button that fixes it."""
        if request.method == "POST":
            self._may_pay(request)
            if self._told(request, lambda: payments.freeze_bonus(study=study, now=timezone.now())):
                self._log(request, study, "bonus fixed")
                messages.success(request, "The bonuses are fixed and due.")
            return redirect(request.path)
        recruiting = recruited.of_study(study)
        fixed = {
            each.session_id: each
            for each in study.payments.filter(kind=PaymentKind.BONUS).select_related("session__participant")
        }
        rows: list[dict[str, Any]] = [
            {
                "annotator": each.session.participant.annotator,
                "session": each.session_id,
                "share": each.score,
                "images": each.images,
                "amount": each.amount_minor,
                "state": each.get_state_display(),
            }
            for each in fixed.values()
        ]
        previewed = bonus.preview(study) if recruiting.bonus_most_minor else []
        fresh = [each for each in previewed if each.session.pk not in fixed]
        rows += [
            {
                "annotator": each.annotator,
                "session": each.session.pk,
                "share": each.share,
                "images": each.images,
                "amount": each.amount_minor,
                "state": "",
            }
            for each in fresh
        ]
        rows.sort(key=lambda row: str(row["annotator"]))
        total = sum(row["amount"] for row in rows)
        for row in rows:
            row["total"] = recruited.money(row["amount"] + recruiting.base_minor, recruiting.currency)
            row["amount"] = recruited.money(row["amount"], recruiting.currency)
            row["percent"] = 100 * (row["share"] or 0.0)
        shares = [row["share"] for row in rows if row["share"] is not None]
        context = {
            "recruiting": recruiting,
            "rows": rows,
            "fresh": len(fresh),
            "most": recruited.money(recruiting.bonus_most_minor, recruiting.currency),
            "total": recruited.money(total, recruiting.currency),
            "fees": recruited.money(recruited.fees(total, recruiting), recruiting.currency),
            "bars": _bars(shares) if shares else [],
            "may_pay": request.user.has_perm(MAY_PAY),
            "at_work": study.sessions.filter(status=SessionStatus.TRIALS).count(),
            "back": self.address(study),
        }
        return self.render(request, study, context, template="admin/annotations/study/people/bonus.html")

    def payments_file(self, request: HttpRequest, study: Study) -> HttpResponse:
        """Every payment as CSV, by pseudonym; with the platform's ids for whoever may see them and asks."""
        with_ids = request.GET.get("ids") == "yes"
        if with_ids and not request.user.has_perm(MAY_SEE_IDS):
            raise PermissionDenied
        if with_ids:
            self._log(request, study, "payments exported with platform ids")
        if request.user.has_perm(MAY_PAY):
            payments.make_due(study=study, now=timezone.now())
        rows = []
        for each in study.payments.select_related("session__participant", "arrival"):
            person = each.session.participant
            row = [
                person.annotator, each.kind, f"{each.amount_minor / 100:.2f}", each.currency, each.state,
                "" if each.score is None else f"{each.score:.4f}", each.images or "",
                each.settled_at.isoformat() if each.settled_at else "", each.reference,
            ]  # fmt: skip
            rows.append([*row, person.platform_id] if with_ids else row)
        head = ["annotator", "kind", "amount", "currency", "state", "bonus share", "images", "paid at", "reference"]
        audit.record(
            "downloaded payments as CSV", study, study=study.pk, details={"rows": len(rows), "platform ids": with_ids}
        )
        return _csv(f"{study.slug}-payments.csv", [*head, "platform id"] if with_ids else head, rows)

    # --- One person's work

    def decide(self, request: HttpRequest, study: Study, session: UUID) -> HttpResponse:
        """Approve, ask for a return, or reject where the platform's rules allow it."""
        self._may_pay(request)
        whose = get_object_or_404(Session.objects.select_related("study", "participant"), pk=session, study=study)
        here = reverse("admin:annotations_study_people_decide", args=[study.pk, session])
        now = timezone.now()
        payments.make_due(study=study, now=now)
        base = whose.payments.filter(kind__in=recruited.BASE_KINDS).first()
        text = request.POST.get("message", "")
        if request.method == "POST":
            do: dict[str, Callable[[], object]] = {
                "approve": lambda: payments.order(study=study, payments=[base.pk] if base else [], by=_who(request)),
                "return": lambda: payments.ask_to_return(session=whose, reason=text, now=now),
                "reject": lambda: payments.reject(session=whose, message=text, now=now),
            }
            action = request.POST.get("do", "")
            if action not in do:
                raise Http404
            if self._told(request, do[action]):
                self._log(request, study, f"{action}: {whose.participant.annotator}")
                messages.success(request, "Done.")
                return redirect(self.address(study))
        context = {
            "session": whose,
            "arrival": whose.arrivals.order_by("-pk").first(),
            "base": base,
            "amount": recruited.money(base.amount_minor, base.currency) if base else "",
            "failures": recruited.attention_failures([whose])[whose.pk],
            "problem": payments.rejection_problem(whose),
            "message": text,
            "least": payments.LEAST_MESSAGE,
            "here": here,
            "back": self.address(study),
        }
        return self.render(request, study, context, template="admin/annotations/study/people/decide.html")

    # --- Edges

    def _may_pay(self, request: HttpRequest) -> None:
        if not request.user.has_perm(MAY_PAY):
            raise PermissionDenied

    def _told(self, request: HttpRequest, do: Callable[[], object]) -> bool:
        """Do it, and say why where it is refused."""
        try:
            do()
        except Refusal as error:
            messages.error(request, error.message)
            return False
        return True

    def _log(self, request: HttpRequest, study: Study, message: str) -> None:
        LogEntry.objects.log_actions(
            user_id=_who(request).pk, queryset=[study], action_flag=CHANGE, change_message=message, single_object=True
        )


def _who(request: HttpRequest) -> User:
    return cast(User, request.user)  # the console's pages are behind its login


def _bars(shares: list[float]) -> list[dict[str, int]]:
    """The histogram's tenths with where they stand in a picture of 440 by 150."""
    return [
        {
            **bar,
            "x": 10 + 40 * number,
            "middle": 28 + 40 * number,
            "y": 121 - bar["height"],
            "above": 117 - bar["height"],
        }
        for number, bar in enumerate(bonus.histogram(shares))
    ]


def _drawn_code() -> str:
    """Eight signs that nobody guesses, as Prolific's own codes look."""
    return "".join(secrets.choice("23456789ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(8))


def _csv(name: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> HttpResponse:
    """A file to save. Cells that a spreadsheet would take for a formula are quoted."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows([plain_cell(cell) for cell in row] for row in rows)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return HttpResponse(text.getvalue(), content_type="text/csv; charset=utf-8", headers=headers)
