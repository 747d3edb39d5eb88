"""The names of this app's background work: what services queue and tasks do."""

from __future__ import annotations

LAUNCH_STUDY = "annotations.launch_study"
CHECK_SESSION = "annotations.check_session"
COMPARE_ARMS = "annotations.compare_arms"
ORDER_PLACES = "annotations.order_places"
IMPORT_IMAGES = "annotations.import_images"
REMOVE_IMAGES = "annotations.remove_images"
SUMMARISE_STUDY = "annotations.summarise_study"
MEASURE_STUDY = "annotations.measure_study"
VERIFY_ARRIVAL = "annotations.verify_arrival"
PLATFORM_EVENT = "annotations.platform_event"
POLL_PLATFORM = "annotations.poll_platform"
PAY_STUDY = "annotations.pay_study"
SETTLE_PAYMENTS = "annotations.settle_payments"
