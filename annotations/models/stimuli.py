"""What is shown: datasets, their categories and their images."""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q


class Dataset(models.Model):
    """A set of images and the categories that people choose from."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=120)
    origin = models.TextField(blank=True, default="", help_text="Where the images come from, as a release will say it.")
    created_at = models.DateTimeField(auto_now_add=True)
    # Set by the import when every image is in: a dataset without it is still being filled, or its import failed.
    ready_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Category(models.Model):
    """One of a dataset's classes. Its index is its column in every soft label."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="categories")
    index = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=80)

    class Meta:
        verbose_name_plural = "categories"
        ordering = ("dataset", "index")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["dataset", "index"], name="category_index_once_per_dataset"),
            models.UniqueConstraint(fields=["dataset", "name"], name="category_name_once_per_dataset"),
        ]

    def __str__(self) -> str:
        return self.name


class Image(models.Model):
    """One image. `sha256` is that of its pixels; the file lies in the image storage under it."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="images")
    index = models.PositiveIntegerField(help_text="Its number in the dataset, from 0, as published.")
    sha256 = models.CharField(max_length=64, db_index=True, validators=[RegexValidator(r"^[0-9a-f]{64}$")])
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    # What follows is never sent to an annotator: a file's name may give its class away.
    name = models.CharField(max_length=300, blank=True, default="", help_text="Its file, as it came.")
    changes = models.CharField(
        max_length=200, blank=True, default="", help_text="What the import did to it: scaled it down, turned it."
    )
    reference = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Index of the dataset's own label, where it has one."
    )
    reference_distribution = models.JSONField(
        null=True, blank=True, help_text="The dataset's own soft label, a probability for each category, or none."
    )

    class Meta:
        ordering = ("dataset", "index")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["dataset", "index"], name="image_index_once_per_dataset"),
            models.CheckConstraint(condition=Q(width__gte=1, height__gte=1), name="image_has_pixels"),
        ]

    def __str__(self) -> str:
        return f"{self.dataset_id}/{self.index}"


class ImageImport(models.Model):
    """A curator's request to fill a dataset. Its progress is that of its job."""

    class Source(models.TextChoices):
        FOLDER = "folder", "a folder on this computer"
        ARCHIVE = "archive", "a zip or tar of images"
        UPLOAD = "upload", "the official CIFAR-10 or CIFAR-100 archive, from this computer"
        DOWNLOAD = "download", "the official CIFAR-10 download"
        DOWNLOAD_100 = "cifar100", "the official CIFAR-100 download"
        SAMPLE = "sample", "the twenty test images that come with this installation"

    class Split(models.TextChoices):
        ALL = "all", "all images"
        TEST = "test", "test images"
        TRAIN = "train", "training images"
        VALIDATION = "validation", "validation images"

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="imports")
    source = models.CharField(max_length=8, choices=Source)
    split = models.CharField(max_length=10, choices=Split)
    file = models.FileField(upload_to="archives/", blank=True, default="")
    # A table of labels that lies beside the images rather than among them, and its name on the curator's computer.
    labels = models.FileField(upload_to="archives/", blank=True, default="")
    categories = models.JSONField(default=list, blank=True, help_text="Names in their order; empty: as the files say.")
    skip_problems = models.BooleanField(default=False, help_text="Take the good images and leave the others out.")
    good = models.PositiveIntegerField(default=0, help_text="Images that could be taken, by the last run.")
    problem_count = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return f"{self.get_source_display()} into {self.dataset}"


class ImportProblem(models.Model):
    """A file that an import could not take. The first thousand are kept."""

    wanted = models.ForeignKey(ImageImport, on_delete=models.CASCADE, related_name="problems")
    position = models.PositiveIntegerField()
    file = models.CharField(max_length=300)
    what = models.CharField(max_length=500)
    todo = models.CharField(max_length=300)

    class Meta:
        ordering = ("wanted", "position")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["wanted", "position"], name="import_problem_once_per_position"),
        ]

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


class ImageRemoval(models.Model):
    """Files of a deleted dataset that are to go from the image storage, unless somebody uses them still."""

    sha256s = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)
    # An import that found one of these files in the storage looks again before it ends.
    done_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{len(self.sha256s)} files"
