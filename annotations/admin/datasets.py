"""Datasets in the console: import images, see what is wrong with them, look through them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path, reverse
from django.utils.text import slugify

from annotations import image_store
from annotations.admin.tables import plain_cell
from annotations.errors import AnnotationError
from annotations.models import Dataset, Image, ImageImport
from annotations.selectors import datasets as selectors
from annotations.services import images, uploads
from elicit.labels.errors import Refusal

PER_PAGE = 60
PROBLEMS_SHOWN = 50
SOURCE = ImageImport.Source
CIFAR = (SOURCE.UPLOAD, SOURCE.DOWNLOAD, SOURCE.DOWNLOAD_100, SOURCE.SAMPLE)
NEEDS_ARCHIVE = (SOURCE.ARCHIVE, SOURCE.UPLOAD)


class SourceFields(forms.Form):
    """Where images come from, and how they are labelled."""

    source = forms.ChoiceField(choices=SOURCE.choices, initial=SOURCE.FOLDER)
    archive = forms.FileField(
        required=False,
        help_text="A zip or tar of images; or cifar-10-python.tar.gz, cifar-100-binary.tar.gz and the like.",
    )
    labels = forms.FileField(
        label="Table of labels",
        required=False,
        help_text="CSV or JSON lines, if the folders don’t say it and no metadata.csv lies among the images.",
    )
    categories = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "cols": 40}),
        help_text="One a line, in the order that you want. Empty: as the folders or the table say.",
    )
    part = forms.ChoiceField(
        label="Take",
        required=False,
        choices=[
            ("all", "all images"),
            ("train", "those in the folder train"),
            ("validation", "those in the folder validation"),
            ("test", "those in the folder test"),
        ],
    )
    split = forms.ChoiceField(
        label="Which images",
        required=False,
        choices=[("test", "the 10,000 test images"), ("train", "the 50,000 training images")],
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("source") in NEEDS_ARCHIVE and not data.get("archive") and "archive" not in self.errors:
            raise ValidationError({"archive": "Choose the archive to upload."})
        return data

    @property
    def request(self) -> dict[str, Any]:
        """What `services.images.request_import` is told."""
        data = self.cleaned_data
        if data["source"] in CIFAR:
            file = data["archive"] if data["source"] == SOURCE.UPLOAD else ""
            return {"source": data["source"], "split": data["split"] or "test", "file": file or ""}
        return {
            "source": data["source"],
            "split": data["part"] or "all",
            "file": (data["archive"] or "") if data["source"] == SOURCE.ARCHIVE else "",
            "labels": data["labels"] or "",
            "categories": [line.strip() for line in data["categories"].splitlines() if line.strip()],
        }


class ImportForm(SourceFields, forms.ModelForm[Dataset]):
    """Name a dataset and say where its images come from."""

    class Meta:
        model = Dataset
        fields = ("name",)

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if name := data.get("name"):
            self.instance.slug = slugify(name)[:50]
            if not self.instance.slug or Dataset.objects.filter(slug=self.instance.slug).exists():
                raise ValidationError({"name": "There is a dataset of this name already."})
        return data


@admin.register(Dataset)
class DatasetAdmin(admin.ModelAdmin[Dataset]):
    """Import images here; a study shows them."""

    list_display = ("name", "image_count", "state", "origin")
    search_fields = ("name", "origin")
    add_form_template = "admin/annotations/dataset/add_form.html"
    change_form_template = "admin/annotations/dataset/change_form.html"

    def get_form(self, request: HttpRequest, obj: Dataset | None = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if obj else ImportForm

    def get_fields(self, request: HttpRequest, obj: Dataset | None = None) -> Any:
        if obj is None:
            return ("name", "source", "archive", "labels", "categories", "part", "split")
        # The import writes the origin.
        return ("name", "origin") if obj.ready_at else ("name",)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "origin":
            kwargs["widget"] = forms.Textarea(attrs={"rows": 2, "cols": 80})
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Dataset, form: Any, change: bool) -> None:
        if change:
            # Nothing that the import may have written since the page was opened.
            obj.save(update_fields=[name for name in form.changed_data if name in form.fields])
            return
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            self._ask(request, obj, form)

    def _ask(self, request: HttpRequest, dataset: Dataset, form: SourceFields) -> None:
        wanted = images.request_import(dataset=dataset, **form.request)
        if wanted.source == SOURCE.FOLDER:
            messages.info(request, "Now choose the folder.")
        else:
            messages.info(request, "The import has begun; this page shows how far it is.")

    def response_add(self, request: HttpRequest, obj: Dataset, post_url_continue: str | None = None) -> HttpResponse:
        """To the dataset's own page, which shows how far the import is."""
        return HttpResponseRedirect(self._address(obj))

    def _address(self, dataset: Dataset) -> str:
        return reverse("admin:annotations_dataset_change", args=[dataset.pk])

    # The list

    @admin.display(description="state")
    def state(self, dataset: Dataset) -> str:
        return selectors.import_state(dataset).words

    @admin.display(description="images")
    def image_count(self, dataset: Dataset) -> str:
        return f"{dataset.images.count():,}"

    # The dataset's page

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"title": "Import a dataset", "largest_side": f"{settings.IMAGE_LARGEST_SIDE:,}"}
        return super().add_view(request, form_url, {**context, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        dataset = self.get_object(request, object_id)
        context = {} if dataset is None else self._panel(request, dataset)
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def _panel(self, request: HttpRequest, dataset: Dataset) -> dict[str, Any]:
        state = selectors.import_state(dataset)
        by_category = selectors.images_by_category(dataset)
        chosen = request.GET.get("category", "")
        known = {str(category.index) for category, _ in by_category}
        category = int(chosen) if chosen in known else None
        page = Paginator(selectors.dataset_images(dataset, category), PER_PAGE).get_page(request.GET.get("page"))
        names = [category.name for category, _ in by_category]
        return {
            "title": dataset.name,
            "subtitle": None,
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
            "dataset": dataset,
            "state": state,
            "by_category": by_category,
            "category": category,
            "page": page,
            "shown": [(image, *_reference(image, names)) for image in page.object_list],
            "image_total": dataset.images.count(),
            "labelled": sum(count for _, count in by_category),
            "distributions": dataset.images.exclude(reference_distribution=None).count(),
            "changed": dataset.images.exclude(changes="").count(),
            "problems": list(state.wanted.problems.all()[:PROBLEMS_SHOWN]) if state.wanted else [],
            "may_import": self.has_add_permission(request),
            "may_study": request.user.has_perm("annotations.add_study"),
            "files_at_once": uploads.FILES_AT_ONCE // 2,
            "bytes_at_once": uploads.BYTES_AT_ONCE // 2,
        }

    def get_urls(self) -> list[URLPattern]:
        def named(end: str, view: Any, name: str) -> URLPattern:
            made: URLPattern = path(
                f"<int:pk>/{end}", self.admin_site.admin_view(view), name=f"annotations_dataset_{name}"
            )
            return made

        return [
            named("import/", self.import_again, "import"),
            named("part/<int:number>/", self.take_part, "part"),
            named("begin/", self.begin, "begin"),
            named("retry/", self.retry, "retry"),
            named("problems.csv", self.problems, "problems"),
            named("thumbnail/<int:index>.jpg", self.thumbnail, "thumbnail"),
            *super().get_urls(),
        ]

    def import_again(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Another source for a dataset whose import failed."""
        dataset = self._importable(request, pk)
        form = SourceFields(request.POST or None, request.FILES or None)
        if form.is_bound and form.is_valid():
            try:
                self._ask(request, dataset, form)
            except AnnotationError as error:
                messages.error(request, error.message)
            else:
                self.log_change(request, dataset, f"Import: {form.cleaned_data['source']}")
            return redirect(self._address(dataset))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Import into {dataset.name}",
            "opts": Dataset._meta,
            "dataset": dataset,
            "form": form,
            "largest_side": f"{settings.IMAGE_LARGEST_SIDE:,}",
        }
        status = 422 if form.is_bound else 200
        return render(request, "admin/annotations/dataset/import.html", context, status=status)

    def take_part(self, request: HttpRequest, pk: int, number: int) -> HttpResponse:
        """Some files of a folder, from `console/folder.js`."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        wanted = selectors.import_state(self._importable(request, pk)).wanted
        files, names = request.FILES.getlist("file"), request.POST.getlist("name")
        if wanted is None or len(names) != len(files):
            return JsonResponse({"message": "These files are not what was announced."}, status=409)
        try:
            uploads.store_part(wanted, number, list(zip(names, files, strict=True)))
        except Refusal as error:
            return JsonResponse({"message": error.message}, status=409)
        return JsonResponse({"stored": len(files)})

    def begin(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The folder has come whole."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        dataset = self._importable(request, pk)
        wanted = selectors.import_state(dataset).wanted
        parts, files = (request.POST.get(name, "") for name in ("parts", "files"))
        try:
            if wanted is None or not (parts.isdecimal() and files.isdecimal()):
                raise Http404
            uploads.begin(wanted, parts_sent=int(parts[:9]), files_sent=int(files[:9]))
        except AnnotationError as error:
            messages.error(request, error.message)
        else:
            messages.info(request, "The import has begun; this page shows how far it is.")
        return redirect(self._address(dataset))

    def retry(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The same import again, with or without its problems."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        dataset = self._importable(request, pk)
        wanted = selectors.import_state(dataset).wanted
        if wanted is None:
            raise Http404
        skip = "skip" in request.POST
        try:
            images.import_again(wanted, skip_problems=skip)
        except AnnotationError as error:
            messages.error(request, error.message)
        else:
            self.log_change(request, dataset, "Import without the files that have problems" if skip else "Import again")
        return redirect(self._address(dataset))

    def problems(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The problems of the latest import as CSV."""
        dataset = get_object_or_404(Dataset, pk=pk)
        if not self.has_view_permission(request, dataset):
            raise PermissionDenied
        wanted = selectors.import_state(dataset).wanted
        response = HttpResponse(content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{dataset.slug}-problems.csv"'
        response.write("\ufeff")
        writer = csv.writer(response)
        writer.writerow(["file", "what is wrong", "what to do"])
        for each in wanted.problems.all() if wanted else []:
            writer.writerow([plain_cell(value) for value in (each.file, each.what, each.todo)])
        return response

    def thumbnail(self, request: HttpRequest, pk: int, index: int) -> HttpResponse:
        """A small image, by its number."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        image = get_object_or_404(Image, dataset_id=pk, index=index) if index < 2**31 else None
        try:
            body = image_store.thumbnail(image.sha256) if image else None
        except FileNotFoundError:
            body = None
        if body is None:
            raise Http404
        return HttpResponse(body, content_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    def _importable(self, request: HttpRequest, pk: int) -> Dataset:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return get_object_or_404(Dataset, pk=pk)

    # Deleting

    def has_delete_permission(self, request: HttpRequest, obj: Dataset | None = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or not obj.studies.exists())

    def get_deleted_objects(self, objs: Iterable[Dataset], request: HttpRequest) -> tuple[Any, Any, Any, Any]:
        """The datasets and the number of their images, rather than each of ten thousand images by name."""
        chosen = list(objs)
        lines = [f"{dataset}: {dataset.images.count():,} images" for dataset in chosen]
        counts = {"datasets": len(chosen), "images": Image.objects.filter(dataset__in=chosen).count()}
        allowed = self.has_delete_permission(request)
        protected = [f"{study} (study)" for dataset in chosen for study in dataset.studies.all()]
        return lines, counts, set() if allowed else {"dataset"}, protected

    def delete_model(self, request: HttpRequest, obj: Dataset) -> None:
        images.delete_dataset(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Dataset]) -> None:
        for dataset in queryset:
            images.delete_dataset(dataset)


def _reference(image: Image, names: list[str]) -> tuple[str, str]:
    """The reference label in words, and the likeliest of the reference distribution."""
    label = names[image.reference] if image.reference is not None and image.reference < len(names) else ""
    shares = sorted(zip(image.reference_distribution or [], names, strict=False), key=lambda pair: -pair[0])
    return label, ", ".join(f"{name} {share:.0%}" for share, name in shares[:3] if share > 0)
