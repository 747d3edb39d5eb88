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
    # Never sent to an annotator.
    reference = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Index of the dataset's own label, where it has one."
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
        UPLOAD = "upload", "a file that I upload"
        DOWNLOAD = "download", "the official CIFAR-10 download"
        SAMPLE = "sample", "the twenty test images that come with this installation"

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="imports")
    source = models.CharField(max_length=8, choices=Source)
    split = models.CharField(max_length=5, choices=[("test", "test images"), ("train", "training images")])
    file = models.FileField(upload_to="archives/", blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return f"{self.get_source_display()} into {self.dataset}"
