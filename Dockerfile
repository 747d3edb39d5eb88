# One image for the site, its workers and its clock; docker-compose.yml says which command each runs.
FROM python:3.11-slim-trixie

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ELICIT_VAR=/var/lib/elicit \
    ELICIT_STATIC_ROOT=/srv/static

RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /srv/elicit --shell /usr/sbin/nologin elicit \
    && install --directory --owner elicit --group elicit /var/lib/elicit

# pg_dump and the like for `manage.py backup`: of the version that docker-compose.yml runs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-client-17 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /srv/elicit
COPY requirements/base.txt requirements/formats.txt requirements/s3.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/base.txt -r requirements/formats.txt -r requirements/s3.txt
# What the trainer needs besides; docker-compose.yml sets it for that service alone.
ARG TRAINING=
COPY requirements/training.txt requirements/torch.txt requirements/
RUN test -z "$TRAINING" || { pip install --no-cache-dir --no-deps --require-hashes -r requirements/training.txt \
    && pip install --no-cache-dir -r requirements/torch.txt; }
COPY . .

# Outside ELICIT_VAR: a volume there would go on showing the files of the first image that it met.
RUN ELICIT_SECRET_KEY=for-this-command-only ELICIT_VAR=/tmp/build python manage.py collectstatic --noinput \
    && rm -r /tmp/build

USER elicit
EXPOSE 8000
CMD ["gunicorn", "elicit.wsgi", "--bind", "0.0.0.0:8000", "--worker-class", "gthread", "--workers", "2", "--threads", "4", "--no-control-socket", "--access-logfile", "-"]
