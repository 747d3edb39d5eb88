"""Choosing a study's images: when it is made, and in a tab of the draft."""

from __future__ import annotations

from typing import Any

import numpy as np
from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from annotations.admin.study_pages import StudyPage
from annotations.links import image_url
from annotations.models import Dataset, Study, StudyStatus
from annotations.selectors import choosing as read
from annotations.selectors.studies import some_images
from annotations.services import choosing, studies

LARGEST_LIST = 5 << 20
STRIP = 24

ALL, LIST, BATCHES, CLASS, AMBIGUITY, RANDOM = "all", "list", "batches", "class", "ambiguity", "random"
WAYS = [
    (ALL, "all images of the dataset"),
    (RANDOM, "so many, drawn at random"),
    (CLASS, "so many of each class, by their reference labels"),
    (AMBIGUITY, "the most ambiguous, as far as it is known"),
    (LIST, "a file with an index or a file name on each line"),
    (BATCHES, "a file of batches, as a published study lists them"),
]
IN_WORDS = {
    ALL: "All images of the dataset.",
    RANDOM: "Drawn at random.",
    CLASS: "Drawn from each class.",
    AMBIGUITY: "By how ambiguous they are.",
    LIST: "From a list.",
    BATCHES: "In batches, as they were given.",
}
FIELDS = ("images_by", "how_many", "per_class", "ambiguity_of", "stratified", "image_list", "batch_file", "seed")


class ImageChoiceForm(forms.Form):
    """Which images. `choice_of` draws them; what a way does not need is not looked at."""

    images_by = forms.ChoiceField(label="images", choices=WAYS, required=False, initial=ALL)
    how_many = forms.IntegerField(
        min_value=1, max_value=10_000_000, required=False, help_text="For a random or an ambiguous choice."
    )
    per_class = forms.CharField(
        required=False,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text="For a choice by class: 100 for each, or “cat: 50, dog: 20”.",
    )
    ambiguity_of = forms.ChoiceField(
        label="ambiguity by", required=False, help_text="The entropy of these labels says how ambiguous an image is."
    )
    stratified = forms.BooleanField(
        required=False, help_text="Take as many from each tenth of the ranking, not only the most ambiguous."
    )
    image_list = forms.FileField(label="list of images", required=False, help_text="Text or CSV, first column.")
    batch_file = forms.FileField(
        label="batches", required=False, help_text="JSON: batch number → image indices. For fixed batches."
    )
    seed = forms.IntegerField(
        min_value=0,
        max_value=2**31 - 1,
        required=False,
        help_text="What is drawn, is drawn again with the same number. Empty: a new one, which the study keeps.",
    )

    def __init__(self, *args: Any, dataset: Dataset | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sources = (
            read.ambiguity_sources(dataset)
            if dataset
            else [(read.REFERENCE, "the reference distributions that came with the images")]
        )
        self.fields["ambiguity_of"].choices = sources or [("", "nothing is known of these images")]  # type: ignore[attr-defined]

    def clean_image_list(self) -> str:
        return self._text("image_list")

    def clean_batch_file(self) -> list[list[int]] | None:
        text = self._text("batch_file")
        return studies.parse_batches(text) if text else None

    def _text(self, name: str) -> str:
        file = self.cleaned_data[name]
        if not file:
            return ""
        if file.size > LARGEST_LIST:
            raise ValidationError("The file is larger than 5 MB.")
        try:
            return str(file.read().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValidationError("The file is not text in UTF-8.") from error

    @property
    def way(self) -> str:
        """A file of batches alone says what is meant."""
        data = self.cleaned_data
        by = str(data.get("images_by") or ALL)
        return BATCHES if by == ALL and data.get("batch_file") is not None else by

    def draw(self, dataset: Dataset) -> None:
        """Draw the images, each problem beside its field. `drawn`, `how` and `seed_used` say what came of it."""
        data = self.cleaned_data
        self.seed_used: int = choosing.new_seed() if data.get("seed") is None else data["seed"]
        self.drawn: list[int] | None = None
        self.how: dict[str, Any] = {"by": self.way}
        rng = np.random.default_rng(self.seed_used)
        field = {LIST: "image_list", BATCHES: "batch_file", CLASS: "per_class", AMBIGUITY: "how_many"}.get(
            self.way, "how_many"
        )
        if field in self.errors or self.way == ALL:
            return
        if self.way != BATCHES and data.get(field) in (None, ""):
            self.add_error(field, "This choice of images needs it.")
            return
        try:
            if self.way == LIST:
                self.drawn = choosing.from_list(dataset, data["image_list"])
            elif self.way == BATCHES:
                if data.get("batch_file") is None:
                    raise ValidationError("This choice of images needs it.")
                studies.known_images(dataset, data["batch_file"])
            elif self.way == CLASS:
                quota = choosing.parse_quota(dataset, data["per_class"])
                self.drawn = choosing.by_class(dataset, quota, rng)
                self.how["per_class"] = {str(category): number for category, number in quota.items()}
            elif self.way == AMBIGUITY:
                source = data.get("ambiguity_of") or read.REFERENCE
                self.drawn = choosing.by_ambiguity(
                    read.entropies(dataset, source), data["how_many"], rng, stratified=data["stratified"]
                )
                self.how |= {"of": source, "stratified": data["stratified"]}
            else:
                self.drawn = choosing.at_random(dataset, data["how_many"], rng)
        except ValidationError as error:
            self.add_error(field, error)

    def apply(self, study: Study) -> int:
        """Give the study what was drawn. Returns how many images it has."""
        if self.way == BATCHES:
            return choosing.choose_batches(study, self.cleaned_data["batch_file"], self.seed_used)
        return choosing.choose(study, self.drawn, self.how, self.seed_used)


class ImagesPage(StudyPage):
    """What a study shows, and in a draft another choice."""

    key = "images"
    title = "Images"
    template = "admin/annotations/study/images.html"

    def context(self, request: HttpRequest, study: Study) -> dict[str, Any]:
        chosen = study.study_images.count()
        images = some_images(study, STRIP)
        names = dict(study.dataset.categories.values_list("index", "name"))
        draft = study.status == StudyStatus.DRAFT
        return {
            "draft": draft,
            "chosen": chosen,
            "how": IN_WORDS.get(study.choice.get("by", ""), ""),
            "strip": [
                {
                    "address": image_url(image, study),
                    "index": image.index,
                    "reference": names.get(image.reference) if image.reference is not None else None,
                }
                for image in images
            ],
            "class_counts": read.class_counts(study),
            "entropies": read.entropy_histogram(study),
            "form": ImageChoiceForm(dataset=study.dataset, initial={"images_by": ALL}) if draft else None,
        }

    def post(self, request: HttpRequest, study: Study) -> HttpResponse | None:
        if study.status != StudyStatus.DRAFT:
            raise PermissionDenied
        form = ImageChoiceForm(request.POST, request.FILES, dataset=study.dataset)
        if form.is_valid():
            form.draw(study.dataset)
        if not form.errors:
            number = form.apply(study)
            messages.success(request, f"The study has {number:,} image{'' if number == 1 else 's'} now.")
            return redirect(self.address(study))
        return self.render(request, study, {**self.context(request, study), "form": form}, status=422)
