"""What the API gives and takes, by the names of docs/openapi.yaml. Plain dictionaries at run time."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class FileOut(TypedDict):
    name: str
    bytes: int
    sha256: str
    url: str


class ReleaseOut(TypedDict):
    study: str
    version: int
    digest: str
    recipe: dict[str, Any]
    ready_at: str
    counts: dict[str, Any]
    files: list[FileOut]


class PaginatedReleaseOutList(TypedDict):
    count: int
    next: NotRequired[str | None]
    previous: NotRequired[str | None]
    results: list[ReleaseOut]


class ReleaseKeyOut(TypedDict):
    study: str
    version: int
    digest: str


FromTo = TypedDict("FromTo", {"from": int, "to": int})
ImageCountsOut = TypedDict("ImageCountsOut", {"from": int, "to": int, "in_both": int})
RecipePartOut = TypedDict("RecipePartOut", {"part": str, "from": Any, "to": Any})
LabelChangeOut = TypedDict(
    "LabelChangeOut", {"image": int, "total_variation": float, "from": list[float], "to": list[float]}
)


class CountsOut(TypedDict):
    images: ImageCountsOut
    annotators: FromTo
    responses: FromTo


class TotalVariationOut(TypedDict):
    mean: float | None
    median: float | None
    p90: float | None
    largest: float | None
    edges: list[float]
    images: list[int]


DifferencesOut = TypedDict(
    "DifferencesOut",
    {
        "from": ReleaseKeyOut,
        "to": ReleaseKeyOut,
        "same": bool,
        "categories": list[str],
        "counts": CountsOut,
        "recipe": list[RecipePartOut],
        "images_added": list[int],
        "images_removed": list[int],
        "annotators_added": list[str],
        "annotators_removed": list[str],
        "responses_added": int,
        "responses_removed": int,
        "labels_changed": int,
        "total_variation": TotalVariationOut,
        "most_changed": list[LabelChangeOut],
    },
)


class ConsentOut(TypedDict):
    version: int
    title: str
    text: str


class StudyOut(TypedDict):
    study: str
    name: str
    open: bool
    consent: ConsentOut


class NextTrialOut(TypedDict):
    id: str
    image_url: str
    position: int
    framing: str
    note: str


class CategoryOut(TypedDict):
    index: int
    name: str


class RulesOut(TypedDict):
    most_named: int | None
    sum_limit: float | None
    ask_impossible: bool


class QuestionOut(TypedDict):
    name: str
    question: str
    kind: str
    low: NotRequired[int]
    high: NotRequired[int]
    choices: NotRequired[list[str]]
    required: NotRequired[bool]
    help: NotRequired[str]


class SessionOut(TypedDict):
    study: str
    status: str
    done: int
    total: int
    next: NextTrialOut | None
    categories: list[CategoryOut]
    rules: RulesOut
    questions: list[QuestionOut]
    attempt: int
    wrong: list[str]
    completion_code: str


class SessionBegunOut(SessionOut):
    token: str


class StandingOut(TypedDict):
    done: int
    total: int
    next: NextTrialOut | None


class ShareOut(TypedDict):
    category: int
    percentage: float


class FeedbackOut(TypedDict):
    html: str
    shares: list[ShareOut]


class ResponseOut(StandingOut):
    id: str
    trial: str
    feedback: FeedbackOut | None


class StepOut(TypedDict):
    key: str
    name: str
    reached: int
    open: int
    at_work: int
    lost: int


class CoverageOut(TypedDict):
    wanted: int
    labels: int
    images: list[int]


class CostOut(TypedDict):
    base_minor: int
    bonus_minor: int
    fees_minor: int
    currency: str


class AlarmOut(TypedDict):
    code: str
    says: str
    do: str
    urgent: bool


class SummaryOut(TypedDict):
    version: int
    until: str
    computed_at: str
    data: dict[str, Any]


class DashboardOut(TypedDict):
    now: str
    status: str
    steps: list[StepOut]
    coverage: CoverageOut
    places: int
    places_free: int
    last_answer: str | None
    flagged: int
    excluded: int
    cost: CostOut
    alarms: list[AlarmOut]
    summary: SummaryOut | None


class ErrorOut(TypedDict):
    code: str
    message: str
    fields: dict[str, str]
