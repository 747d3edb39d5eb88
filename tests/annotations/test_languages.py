"""The annotator's pages in every language that they speak, and whether all that they say is translated."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import polib
import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import translation

from annotations import languages
from annotations.models import Session, Study
from annotations.presets import PRESETS, Preset
from annotations.services import leaving
from annotations.wording import SENTENCES, in_words
from elicit.labels import AnswerRules, check
from elicit.labels.elicited import Contradiction
from tests import factories as make
from tests import translations
from tests.annotations.test_pages import arrive, link, page_of, text_of
from tests.shown import trial_data

TEMPLATES = sorted((translations.ROOT / "frontend" / "templates" / "annotate").glob("*.html"))
FOREIGN = [code for code, _ in settings.LANGUAGES if code != settings.LANGUAGE_CODE]


# --- The catalogues


def test_every_language_that_is_offered_has_a_catalogue() -> None:
    assert [path.parent.parent.name for path in translations.CATALOGUES] == [
        translation.to_locale(code) for code in FOREIGN
    ]


@pytest.mark.parametrize("catalogue", translations.CATALOGUES, ids=lambda path: path.parent.parent.name)
def test_a_catalogue_has_every_sentence_that_is_said_and_no_other(catalogue: Path) -> None:
    said = translations.messages()
    assert len(said) > 100
    assert set(translations.entries(catalogue)) == set(said), "run: .venv/bin/python -m tests.translations"


@pytest.mark.parametrize("catalogue", translations.CATALOGUES, ids=lambda path: path.parent.parent.name)
def test_every_sentence_is_translated_with_what_is_filled_in(catalogue: Path) -> None:
    blanks = re.compile(r"%\(\w+\)s|\{\w+\}|%%")
    wrong = []
    for message, entry in translations.entries(catalogue).items():
        done = list(entry.msgstr_plural.values()) if message.plural else [entry.msgstr]
        wanted = sorted(blanks.findall(message.plural or message.text))
        if not all(done) or "fuzzy" in entry.flags or any(sorted(blanks.findall(each)) != wanted for each in done):
            wrong.append(message.text)
    assert wrong == []


@pytest.mark.parametrize("catalogue", translations.CATALOGUES, ids=lambda path: path.parent.parent.name)
def test_the_compiled_catalogue_is_the_written_one(catalogue: Path) -> None:
    def content(file: Any) -> dict[Any, Any]:
        return {(e.msgctxt or None, e.msgid, e.msgid_plural): (e.msgstr, e.msgstr_plural) for e in file}

    written = content(polib.pofile(str(catalogue)))
    assert content(polib.mofile(str(catalogue.with_suffix(".mo")))) == written, (
        "run: .venv/bin/python -m tests.translations"
    )


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_says_anything_that_can_not_be_translated(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    text = re.sub(r"\{% comment %\}.*?\{% endcomment %\}|\{#.*?#\}", "", text, flags=re.DOTALL)
    text = re.sub(r"\{% blocktranslate.*?\{% endblocktranslate %\}", "", text, flags=re.DOTALL)
    text = re.sub(r"\{% block body_class %\}.*?\{% endblock %\}|\{%.*?%\}|\{\{.*?\}\}", "", text, flags=re.DOTALL)
    # What the page's scripts look sentences up by, and what stands on a key.
    text = re.sub(r"<dt>[a-z_]*</dt>|<kbd[^>]*>[^<]*</kbd>", "", text)
    spoken = re.findall(r'(?:alt|title|placeholder|aria-label|aria-valuetext|label)="([^"]*)"', text)
    spoken += re.split(r"<[^>]*>", text)
    left = [re.sub(r"Elicit|DOCTYPE", "", each).strip() for each in spoken]
    assert [words for words in left if re.search(r"[A-Za-z]{2}", words)] == []


# --- Which language


@pytest.fixture
def study(db: None) -> Study:
    return make.make_study(dataset=make.make_dataset(4), images_per_session=4, completion_code="C0DE")


def agreeing(client: Client, study: Study) -> str:
    """The consent page as a client sees it."""
    return text_of(client.get(link(study)))


@pytest.mark.parametrize(
    ("wanted", "lang"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-hans"),
        ("zh", "zh-hans"),
        ("zh-Hans-SG", "zh-hans"),
        ("en-GB", "en"),
        ("fr,de;q=0.5", "en"),
        ("fr,zh;q=0.5", "zh-hans"),
        ("", "en"),
        ("*", "en"),
        ("x" * 5000, "en"),
    ],
)
def test_pages_speak_what_the_browser_asks_for_as_far_as_they_can(study: Study, wanted: str, lang: str) -> None:
    text = agreeing(Client(headers={"accept-language": wanted}), study)

    assert f'<html lang="{lang}" dir="ltr">' in text
    assert ("我已阅读以上内容" in text) is (lang == "zh-hans")
    assert ("I have read this" in text) is (lang == "en")


def test_a_studys_language_counts_for_all(study: Study) -> None:
    Study.objects.update(language="zh-hans")

    text = agreeing(Client(headers={"accept-language": "en"}), study)

    assert '<html lang="zh-hans"' in text
    assert 'name="language"' not in text


def test_a_visitor_can_switch_and_stays_switched(study: Study) -> None:
    browser = Client(headers={"accept-language": "en"})
    assert 'value="zh-hans" lang="zh-Hans"' in agreeing(browser, study)

    response = browser.post(reverse("set_language"), {"language": "zh-hans", "next": link(study)}, follow=True)

    assert '<html lang="zh-hans"' in text_of(response)
    session = arrive(study, client=browser)
    assert "任务说明" in text_of(browser.get(page_of(session)))
    assert browser.cookies["elicit-language"]["samesite"] == "Lax"


def test_switching_leads_nowhere_else(study: Study) -> None:
    response = Client().post(reverse("set_language"), {"language": "zh-hans", "next": "https://evil.example/"})

    assert response["Location"] == "/"


def test_the_switch_leads_back_to_the_page_even_after_a_form_was_sent(study: Study) -> None:
    session = make.answer_all(make.begin(arrive(study)))

    raw = Client().post(page_of(session) + "questionnaire", {}).content.decode()

    assert f'name="next" value="{page_of(session)}"' in raw


def test_one_persons_language_is_not_the_next_ones(study: Study) -> None:
    Client(headers={"accept-language": "zh"}).get(link(study))

    assert translation.get_language() == "en"
    assert "Sign in" in text_of(Client(headers={"accept-language": "zh"}).get(reverse("login")))
    with translation.override("zh-hans"):
        assert 'lang="en' in text_of(Client(headers={"accept-language": "zh"}).get("/admin/login/"))


def test_a_right_to_left_language_turns_the_page(rf: Any) -> None:
    from django.template.loader import render_to_string

    with translation.override("ar"):
        assert '<html lang="ar" dir="rtl">' in render_to_string("annotate/message.html", {"title": "x"})


def test_every_page_of_a_session_is_in_the_studys_language_alone(study: Study) -> None:
    """Not one English sentence of ours is left on a Chinese page."""
    questions = [{"name": "a", "question": "甲还是乙", "kind": "choice", "choices": ["甲", "乙"], "answer": "甲"}]
    Study.objects.update(
        language="zh-hans", comprehension=questions, questionnaire=[], screenout_code="0UT", time_estimate=""
    )
    study.refresh_from_db()
    # Whole sentences: a word such as "Time" may be part of an attribute.
    english = [m.text for m in translations.messages() if len(m.text.split()) > 2 and "%(" not in m.text]
    session = arrive(study)
    browser = Client()
    shown = [browser.get("/study/nothing/", headers={"accept-language": "zh"}), browser.get(link(study))]
    shown.append(browser.get(page_of(session)))
    shown.append(browser.post(page_of(session) + "instructions", follow=True))
    shown.append(browser.post(page_of(session) + "comprehension", {"_attempt": 0}))
    shown.append(browser.post(page_of(session) + "comprehension", {"_attempt": 0, "a": "乙"}, follow=True))
    other = arrive(study)
    make.begin(other)
    shown.append(browser.get(page_of(other)))
    make.answer_all(other)
    shown.append(browser.get(page_of(other)))
    shown.append(browser.get(page_of(other) + "withdraw"))
    shown.append(browser.post(page_of(other) + "withdraw"))
    leaving.withdraw(session_id=other.pk, now=make.NOON)
    shown.append(browser.get(page_of(other)))
    shown.append(browser.post(page_of(session) + "comprehension", {"_attempt": 1, "a": "乙"}, follow=True))

    for response in shown:
        text = text_of(response)
        assert '<html lang="zh-hans"' in text
        assert [sentence for sentence in english if sentence in text] == []
    assert Session.objects.get(pk=session.pk).status == "screened_out"


# --- The API's sentences


def put(session: Session, named: list[dict[str, Any]], **headers: str) -> dict[str, Any]:
    data = trial_data(Client().get(page_of(session)))
    path = data["api"].format(trial=data["trials"][0]["id"], response=uuid.uuid4())
    response = Client().put(
        path,
        {"named": named, "duration_ms": 10},
        content_type="application/json",
        headers={"Authorization": data["authorization"], **headers},
    )
    return dict(response.json())


def test_what_the_api_refuses_it_says_in_the_pages_language(study: Study) -> None:
    session = make.begin(arrive(study))
    bad = [{"category": 1, "percentage": 30}, {"category": 2, "percentage": 60}]

    english, chinese = (put(session, bad, **{"accept-language": each}) for each in ("en", "zh"))

    assert english["fields"] == {
        "named.1.percentage": "This is given as likelier than the category above it: put the likelier one first."
    }
    assert "可能性高于上面的类别" in chinese["fields"]["named.1.percentage"]
    assert chinese["message"] == chinese["fields"]["named.1.percentage"]
    assert english["code"] == chinese["code"] == "alternative_likelier"


RULES = AnswerRules(categories=4, most_named=3, sum_limit=100)
CONTRADICTIONS: list[tuple[list[tuple[object, object]], list[object], AnswerRules]] = [
    ([], [], RULES),
    ([(9, 50)], [], RULES),
    ([(1, 50)], [9], RULES),
    ([(1, 50), (1, 20)], [], RULES),
    ([(1, 50)], [1], RULES),
    ([(1, None)], [], RULES),
    ([(1, "8p")], [], RULES),
    ([(1, 101)], [], RULES),
    ([(1, 20), (2, 30)], [], RULES),
    ([(1, 0)], [], RULES),
    ([(1, 80), (2, 70)], [], RULES),
    ([(0, 40), (1, 30), (2, 20), (3, 10)], [], RULES),
    ([(1, 50), (2, 30)], [], AnswerRules(categories=4, most_named=1)),
    ([(1, 50)], [2], AnswerRules(categories=4, ask_impossible=False)),
]


@pytest.mark.parametrize(("named", "impossible", "rules"), CONTRADICTIONS)
def test_the_sentences_at_the_edge_are_those_of_the_core(
    named: list[tuple[object, object]], impossible: list[object], rules: AnswerRules
) -> None:
    with pytest.raises(Contradiction) as refused:
        check(named, impossible, rules)

    told = in_words(refused.value, rules)

    assert (told.code, told.message, told.fields, told.codes) == (
        refused.value.code,
        refused.value.message,
        refused.value.fields,
        refused.value.codes,
    )


def test_every_code_of_the_core_has_a_sentence_at_the_edge() -> None:
    met = set()
    for named, impossible, rules in CONTRADICTIONS:
        with pytest.raises(Contradiction) as refused:
            check(named, impossible, rules)
        met |= set(refused.value.codes.values())
    assert met == set(SENTENCES) - {"unknown_impossible"} | {"too_many_named"}


def test_the_languages_to_choose_from_are_named_in_themselves(study: Study) -> None:
    assert [(each.tag, each.name) for each in languages.choices(None)] == [("en", "English"), ("zh-Hans", "简体中文")]
    study.language = "en"
    assert languages.choices(study) == []


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.key)
def test_a_preset_comes_in_every_language_with_the_same_settings(preset: Preset) -> None:
    told = {"instructions", "time_estimate", "questionnaire", "comprehension", "language"}
    english = preset.in_language("")

    assert english.consent == preset.consent
    assert {**english.settings, "language": ""} == {**preset.settings, "language": ""}
    for code in FOREIGN:
        other = preset.in_language(code)
        assert other.consent != preset.consent
        assert other.settings["instructions"] != preset.settings["instructions"]
        assert {k: v for k, v in other.settings.items() if k not in told} == {
            k: v for k, v in preset.settings.items() if k not in told
        }
        assert [q["name"] for q in other.settings["questionnaire"]] == [
            q["name"] for q in preset.settings["questionnaire"]
        ]


def test_a_new_study_takes_the_presets_texts_in_its_language(db: None) -> None:
    client = Client()
    client.force_login(make.make_curator())

    client.post(
        "/admin/annotations/study/add/",
        {"name": "Birds", "dataset": make.make_dataset(4).pk, "preset_key": "cifar10s", "language": "zh-hans"},
    )

    study = Study.objects.get()
    assert study.language == "zh-hans"
    assert "100 个其他人" in study.instructions
    assert "参与完全自愿" in study.consents.get().text
    assert study.questionnaire[0]["question"].startswith("任务说明")
