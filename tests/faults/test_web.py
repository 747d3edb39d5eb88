"""The site's own process dies under an annotator."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
import uuid

import pytest

from annotations import selectors
from annotations.models import Response, Session, Trial
from tests import factories as make
from tests import services
from tests.services import Service

pytestmark = pytest.mark.worker


def put(site: Service, session: Session, trial: Trial, response_id: uuid.UUID) -> int | None:
    """Send an answer, as the browser's outbox does; the status, or None where the site is gone."""
    body = {"named": [{"category": 3, "percentage": 80}], "impossible": [], "duration_ms": 1000, "hidden_ms": 0}
    request = urllib.request.Request(  # noqa: S310 (our own address)
        f"{site.url}/api/trials/{trial.pk}/responses/{response_id}",
        json.dumps(body).encode(),
        {"Authorization": f"Session {session.token}", "Content-Type": "application/json"},
        method="PUT",
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 (our own address)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


def test_no_accepted_answer_is_lost_when_the_site_is_killed_and_sending_again_is_harmless(
    server_environment: dict[str, str],
) -> None:
    study = make.make_study(dataset=make.make_dataset(20), labels_per_image=4, images_per_session=20)
    people = [make.begin(make.make_session(study, seed=number), seed=number) for number in range(4)]
    sent = {(person.pk, trial.pk): uuid.uuid4() for person in people for trial in selectors.open_trials(person)}
    accepted: set[uuid.UUID] = set()
    enough = threading.Event()

    with services.web(server_environment) as doomed:

        def answer_until_the_site_is_gone(person: Session, trials: list[Trial]) -> None:
            for trial in trials:
                response_id = sent[person.pk, trial.pk]
                if put(doomed, person, trial, response_id) != 201:
                    return
                accepted.add(response_id)
                if len(accepted) >= 12:
                    enough.set()

        threads = [
            threading.Thread(target=answer_until_the_site_is_gone, args=(person, selectors.open_trials(person)))
            for person in people
        ]
        for thread in threads:
            thread.start()
        assert enough.wait(60)
        doomed.kill()
        for thread in threads:
            thread.join(60)

    assert 12 <= len(accepted) < len(sent)
    stored = set(Response.objects.values_list("pk", flat=True))
    assert accepted <= stored <= set(sent.values())

    with services.web(server_environment) as site:
        again = {
            response_id: put(site, person, Trial.objects.get(pk=trial), response_id)
            for person in people
            for (who, trial), response_id in sent.items()
            if who == person.pk
        }
    assert {response_id for response_id, status in again.items() if status == 200} == stored
    assert set(again.values()) == {200, 201}
    assert Response.objects.count() == len(sent)
