"""A study: a protocol on a dataset, and the places that it has for annotators."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from annotations.errors import refuse
from annotations.models.stimuli import Dataset, Image
from annotations.practice import validate_practice
from annotations.questionnaire import validate_comprehension, validate_questionnaire


class StudyStatus(models.TextChoices):
    DRAFT = "draft", "draft"
    LIVE = "live", "live"
    PAUSED = "paused", "paused"
    CLOSED = "closed", "closed"


class Framing(models.TextChoices):
    OTHERS = "others", "what 100 people would say"
    SELF = "self", "what the annotator sees"
    BOTH = "both", "first what 100 people would say, then what the annotator sees"

    @property
    def asked(self) -> tuple[Framing, ...]:
        """The questions that each image is shown with, in order."""
        return (Framing.OTHERS, Framing.SELF) if self == Framing.BOTH else (self,)


class InputMode(models.TextChoices):
    BOTH = "both", "slider and typed number"
    SLIDER = "slider", "slider only"
    TYPED = "typed", "typed number only"


class Assignment(models.TextChoices):
    BATCHES = "batches", "fixed batches: a session shows one batch, dealt at the start"
    LEAST_FILLED = "least_filled", "one by one: the images with the fewest labels first"
    ADAPTIVE = "adaptive", "adaptive: the images whose label is least settled first"

    @property
    def one_by_one(self) -> bool:
        """Whether each image is handed out by itself, as a batch of one."""
        return self != Assignment.BATCHES


class Language(models.TextChoices):
    BROWSER = "", "as the annotator's browser asks"
    ENGLISH = "en", "English"
    CHINESE = "zh-hans", "简体中文"


# What changes in a launched study; everything else is fixed.
CHANGES_AFTER_LAUNCH = frozenset({"status", "launched_at", "closed_at", "labels_left"})


class Study(models.Model):
    """The settings are free while the study is a draft and fixed from its launch on: a change makes a new version."""

    name = models.CharField(max_length=120)
    slug = models.SlugField(unique=True, help_text="Part of the link that annotators open.")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="studies")
    preset = models.CharField(max_length=60, blank=True, default="", editable=False)
    status = models.CharField(max_length=6, choices=StudyStatus, default=StudyStatus.DRAFT, editable=False)

    version = models.PositiveSmallIntegerField(default=1, editable=False)
    predecessor = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="successors"
    )

    assignment = models.CharField("images are handed out", max_length=12, choices=Assignment, default="batches")
    labels_per_image = models.PositiveSmallIntegerField(
        "labels per image (K)",
        default=6,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text="In every arm. An adaptive study gives an image at most so many.",
    )
    least_labels = models.PositiveSmallIntegerField(
        default=3,
        validators=[MinValueValidator(2), MaxValueValidator(1000)],
        help_text="Adaptive only: before so many labels no image counts as settled.",
    )
    settled_within = models.FloatField(
        default=0.1,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="Adaptive only: an image is settled when its pooled label is expected to be no further than this "
        "from what a large crowd would say (total variation, 0 to 1).",
    )
    budget_labels = models.PositiveIntegerField(
        "budget of labels",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="One by one and adaptive only: most answers in all, those under way included. Empty: no limit.",
    )
    # What is left of the budget for sessions to come.
    labels_left = models.PositiveIntegerField(null=True, blank=True, editable=False)
    choice = models.JSONField(default=dict, editable=False, help_text="How the images were chosen, seed and all.")
    images_per_session = models.PositiveSmallIntegerField(
        default=25, validators=[MinValueValidator(1), MaxValueValidator(500)]
    )
    repeats_per_session = models.PositiveSmallIntegerField(
        default=2,
        validators=[MaxValueValidator(50)],
        help_text="Images shown a second time at the end, to see how far an annotator agrees with themselves.",
    )
    image_scale = models.PositiveSmallIntegerField(
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(10)],
        help_text="How many times their size the images are shown.",
    )
    shuffle_categories = models.BooleanField(
        default=True, help_text="Draw an order of the categories for each annotator and record it."
    )
    framing = models.CharField(max_length=6, choices=Framing, default=Framing.OTHERS)
    most_named = models.PositiveSmallIntegerField(
        "most categories named",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Empty: as many as the annotator likes.",
    )
    sum_limit = models.PositiveSmallIntegerField(
        "limit on the sum of percentages",
        null=True,
        blank=True,
        validators=[MinValueValidator(100)],
        help_text="100 forbids answers that add up to more; empty allows them.",
    )
    ask_impossible = models.BooleanField("ask for impossible categories", default=True)
    impossible_shortcut = models.BooleanField(
        "offer “all others impossible”", default=True, help_text="One press for all categories that are not named."
    )
    input_mode = models.CharField("percentages by", max_length=6, choices=InputMode, default=InputMode.BOTH)
    language = models.CharField(
        "language of the pages",
        max_length=7,
        choices=Language,
        blank=True,
        default=Language.BROWSER,
        help_text="Of the buttons and messages; your own texts stay as you write them.",
    )
    break_every = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Offer a short break after so many images; empty: never.",
    )
    repeat_distance = models.FloatField(
        "most distance between repeats",
        default=0.3,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="A session is called inconsistent when its repeats differ from their first answers by more than "
        "this, as mean total variation (0 the same, 1 nothing in common).",
    )
    idle_minutes = models.PositiveIntegerField(
        default=60,
        validators=[MinValueValidator(1)],
        help_text="After this long without a sign, a session's place goes to somebody else.",
    )
    instructions = models.TextField(blank=True, default="", help_text="Markdown.")
    time_estimate = models.CharField(max_length=80, blank=True, default="")
    pay_note = models.CharField(max_length=200, blank=True, default="")
    practice = models.JSONField(
        blank=True,
        default=list,
        validators=[validate_practice],
        help_text="Images to practise on, with feedback: see “Practice and comprehension” in the documentation.",
    )
    comprehension = models.JSONField(
        "comprehension check",
        blank=True,
        default=list,
        validators=[validate_comprehension],
        help_text="Questions with a right answer. Annotators have two attempts.",
    )
    questionnaire = models.JSONField(blank=True, default=list, validators=[validate_questionnaire])
    completion_code = models.CharField(
        max_length=40, blank=True, default="", help_text="Shown at the end, for the recruiting platform."
    )
    screenout_code = models.CharField(
        max_length=40, blank=True, default="", help_text="Shown to those who don't pass the comprehension check."
    )
    return_url = models.URLField(
        "link back",
        blank=True,
        default="",
        help_text="Where annotators go once every answer is stored, such as the recruiting platform's completion link.",
    )

    licence = models.CharField(
        max_length=60, blank=True, default="", help_text="Of the released labels, as an SPDX identifier: CC-BY-4.0."
    )
    recruitment = models.TextField(
        blank=True, default="", help_text="Where and how annotators are found; goes into the data card."
    )
    demographics = models.TextField(
        blank=True, default="", help_text="What is known of the annotators as a group; goes into the data card."
    )

    created_at = models.DateTimeField(auto_now_add=True)
    launched_at = models.DateTimeField(null=True, blank=True, editable=False)
    closed_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name_plural = "studies"
        ordering = ("-created_at",)
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(labels_per_image__gte=1), name="study_k_at_least_1"),
            models.CheckConstraint(condition=Q(images_per_session__gte=1), name="study_session_has_images"),
            models.CheckConstraint(
                condition=Q(repeats_per_session__lte=F("images_per_session")),
                name="study_repeats_fit_session",
            ),
            models.CheckConstraint(condition=Q(image_scale__range=(1, 10)), name="study_image_scale_1_to_10"),
            models.CheckConstraint(
                condition=Q(sum_limit__isnull=True) | Q(sum_limit__gte=100),
                name="study_sum_limit_at_least_100",
            ),
            models.CheckConstraint(
                condition=Q(repeat_distance__gte=0, repeat_distance__lte=1),
                name="study_repeat_distance_0_to_1",
            ),
            models.CheckConstraint(condition=Q(least_labels__gte=2), name="study_least_labels_at_least_2"),
            models.CheckConstraint(
                condition=Q(settled_within__gte=0, settled_within__lte=1), name="study_settled_within_0_to_1"
            ),
            models.CheckConstraint(
                condition=Q(labels_left__isnull=True) | Q(labels_left__lte=F("budget_labels")),
                name="study_labels_left_within_budget",
            ),
        ]

    # Whether it is too large to be counted on request, once that is known: see `selectors.counted`.
    large: bool | None = None

    def __str__(self) -> str:
        return self.name

    def save(self, **options: Any) -> None:
        """Raises AnnotationError `settings_frozen` where a setting of a launched study would change. (Those that an
        arm's session sees in their place are no change, but are not to be stored either.)"""
        named = options.get("update_fields")
        fixed = [
            field.attname
            for field in self._meta.concrete_fields
            if (named is None or field.name in named or field.attname in named)
            and field.name not in CHANGES_AFTER_LAUNCH
            and field.attname in self.__dict__
        ]
        if fixed and not self._state.adding:
            stored = Study.objects.filter(pk=self.pk).exclude(status=StudyStatus.DRAFT).values(*fixed).first()
            if stored is not None and any(value != self.__dict__[name] for name, value in stored.items()):
                raise refuse("settings_frozen")
        super().save(**options)

    @property
    def one_by_one(self) -> bool:
        return Assignment(self.assignment).one_by_one


class Consent(models.Model):
    """The words that annotators agree to. Never edited: a change is a new version."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="consents")
    version = models.PositiveSmallIntegerField()
    title = models.CharField(max_length=120, default="Before you begin")
    text = models.TextField(help_text="Markdown.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("study", "-version")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["study", "version"], name="consent_version_once_per_study")
        ]

    def __str__(self) -> str:
        return f"version {self.version}"


class Batch(models.Model):
    """Images that one session shows together; one image where they are handed out one by one."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="batches")
    number = models.PositiveIntegerField()
    # Adaptive studies: whether its image has gained or lost answers since its places were last put in order, and
    # whether it has labels enough.
    touched = models.BooleanField(default=False, editable=False)
    settled = models.BooleanField(default=False, editable=False)

    class Meta:
        verbose_name_plural = "batches"
        ordering = ("study", "number")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["study", "number"], name="batch_number_once_per_study")
        ]
        indexes: ClassVar = [models.Index(fields=["study"], condition=Q(touched=True), name="batch_touched")]

    def __str__(self) -> str:
        return f"batch {self.number}"


class StudyImage(models.Model):
    """An image's membership in a study, in one batch."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="study_images")
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="study_images")
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="study_images")

    class Meta:
        ordering = ("batch", "pk")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["study", "image"], name="image_once_per_study"),
        ]

    def __str__(self) -> str:
        return f"{self.batch_id}/{self.image_id}"


class Place(models.Model):
    """Room for one session on one batch. A batch has K of them (in each arm), made at launch, so that no image can get
    K+1 labels: there is nothing to count, and nothing to race for but the row itself.

    Free places are handed out by `turn`, the smallest first: that one number is all in which the ways of assignment
    differ. It starts as `number`, so that the least filled come first; an adaptive study sets it anew as answers come
    in, and takes it away (null) from the places of an image that is settled.
    """

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="places")
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="places")
    arm = models.ForeignKey("annotations.Arm", on_delete=models.RESTRICT, null=True, blank=True, related_name="places")
    number = models.PositiveSmallIntegerField(help_text="1..K")
    rank = models.PositiveIntegerField(help_text="Drawn at random at launch: the order within one turn.")
    turn = models.FloatField(null=True, blank=True, help_text="Smaller is handed out first; empty: not at all.")
    session = models.ForeignKey(
        "annotations.Session", on_delete=models.SET_NULL, null=True, blank=True, related_name="places"
    )

    class Meta:
        ordering = ("study", "number", "rank")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["batch", "number"], condition=Q(arm__isnull=True), name="place_number_once_per_batch"
            ),
            models.UniqueConstraint(
                fields=["batch", "arm", "number"],
                condition=Q(arm__isnull=False),
                name="place_number_once_per_batch_and_arm",
            ),
            # Nobody labels an image twice.
            models.UniqueConstraint(
                fields=["batch", "session"], condition=Q(session__isnull=False), name="session_once_per_batch"
            ),
            models.CheckConstraint(condition=Q(number__gte=1), name="place_number_from_1"),
        ]
        indexes: ClassVar = [
            # The next free places, in the order in which they are handed out. One index for both would have to be
            # sorted: PostgreSQL takes no order from an index below a column that IS NULL.
            models.Index(
                fields=["study", "turn", "rank"],
                condition=Q(session__isnull=True, turn__isnull=False),
                name="place_free",
            ),
            models.Index(
                fields=["arm", "turn", "rank"],
                condition=Q(session__isnull=True, turn__isnull=False, arm__isnull=False),
                name="place_free_in_arm",
            ),
        ]

    def __str__(self) -> str:
        return f"place {self.number} on batch {self.batch_id}"
