from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.text import slugify

from annotations.kinds import IMPORT_IMAGES
from annotations.models import Dataset, ImageImport
from annotations.services import images
from jobs.models import Job, Status

STRIP = 24


class ImportForm(forms.ModelForm[Dataset]):
    """Name a dataset and say where its images come from."""

    source = forms.ChoiceField(choices=ImageImport.Source.choices, initial=ImageImport.Source.DOWNLOAD)
    archive = forms.FileField(
        required=False, help_text="cifar-10-python.tar.gz or cifar-10-binary.tar.gz, for the first choice."
    )
    split = forms.ChoiceField(
        label="which images",
        choices=[("test", "the 10,000 test images"), ("train", "the 50,000 training images")],
    )

    class Meta:
        model = Dataset
        fields = ("name",)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("source") == ImageImport.Source.UPLOAD and not data.get("archive"):
            raise ValidationError({"archive": "Choose the archive to upload."})
        if name := data.get("name"):
            self.instance.slug = slugify(name)[:50]
            if not self.instance.slug or Dataset.objects.filter(slug=self.instance.slug).exists():
                raise ValidationError({"name": "There is a dataset of this name already."})
        return data


@admin.register(Dataset)
class DatasetAdmin(admin.ModelAdmin[Dataset]):
    """Import images here; a study shows them."""

    list_display = ("name", "image_count", "state", "origin")
    change_form_template = "admin/annotations/dataset/change_form.html"

    def get_form(self, request: HttpRequest, obj: Dataset | None = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if obj else ImportForm

    def get_fields(self, request: HttpRequest, obj: Dataset | None = None) -> Any:
        if obj is None:
            return ("name", "source", "archive", "split")
        return ("name", "state", "image_count", "categories_shown", "origin", "strip")

    def get_readonly_fields(self, request: HttpRequest, obj: Dataset | None = None) -> Any:
        return () if obj is None else ("state", "image_count", "categories_shown", "origin", "strip")

    def save_model(self, request: HttpRequest, obj: Dataset, form: Any, change: bool) -> None:
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            if not change:
                data = form.cleaned_data
                file = data["archive"] if data["source"] == ImageImport.Source.UPLOAD else ""
                images.request_import(dataset=obj, source=data["source"], split=data["split"], file=file or "")
                messages.info(request, "The import has begun; this page shows how far it is.")

    def response_post_save_add(self, request: HttpRequest, obj: Dataset) -> HttpResponseRedirect:
        """To the dataset's own page, which shows how far the import is."""
        return HttpResponseRedirect(reverse("admin:annotations_dataset_change", args=[obj.pk]))

    @admin.display(description="state")
    def state(self, dataset: Dataset) -> str:
        if dataset.ready_at is not None:
            return "ready"
        wanted = dataset.imports.order_by("-pk").first()
        job = Job.objects.filter(kind=IMPORT_IMAGES, subject=str(wanted.pk)).order_by("-pk").first() if wanted else None
        if job is None:
            return "empty"
        if job.status == Status.FAILED:
            return f"failed: {job.error}"
        percent = "" if job.percent is None else f" {job.percent} %"
        return f"{job.stage or 'waiting for a worker'}{percent}"

    @admin.display(description="images")
    def image_count(self, dataset: Dataset) -> str:
        return f"{dataset.images.count():,}"

    @admin.display(description="categories")
    def categories_shown(self, dataset: Dataset) -> str:
        return ", ".join(category.name for category in dataset.categories.all()) or "–"

    @admin.display(description="the first images")
    def strip(self, dataset: Dataset) -> SafeString | str:
        first = dataset.images.order_by("index")[:STRIP]
        rows = ((reverse("image", args=[image.sha256, 2]), image.index) for image in first)
        return format_html_join(" ", '<img src="{}" alt="image {}" width="64" height="64">', rows) or "–"

    def has_delete_permission(self, request: HttpRequest, obj: Dataset | None = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or not obj.studies.exists())
