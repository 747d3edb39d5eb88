# One image for the site, its workers and its clock; docker-compose.yml says which command each runs.

# Packages are installed here, so that neither pip's leavings nor whatever builds them get into the image.
FROM python:3.11-slim-trixie AS packages
RUN python -m venv --without-pip /opt/elicit
WORKDIR /build
COPY requirements/base.txt requirements/formats.txt requirements/s3.txt requirements/
RUN pip --python /opt/elicit/bin/python install --no-cache-dir --require-hashes \
    -r requirements/base.txt -r requirements/formats.txt -r requirements/s3.txt
# What the trainer needs besides; docker-compose.yml sets it for that service alone.
ARG TRAINING=
COPY requirements/training.txt requirements/torch.txt requirements/
RUN test -z "$TRAINING" || { pip --python /opt/elicit/bin/python install --no-cache-dir --no-deps --require-hashes -r requirements/training.txt \
    && pip --python /opt/elicit/bin/python install --no-cache-dir -r requirements/torch.txt; }

FROM python:3.11-slim-trixie
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/opt/elicit/bin:/usr/local/bin:/usr/bin:/bin \
    ELICIT_VAR=/var/lib/elicit \
    ELICIT_STATIC_ROOT=/srv/static

RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /srv/elicit --shell /usr/sbin/nologin elicit \
    && install --directory --owner elicit --group elicit /var/lib/elicit
# pg_dump and the like for `manage.py backup`: of the version that docker-compose.yml runs. Debian keeps no older build of
# a package to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-client-17 \
    && rm -rf /var/lib/apt/lists/*

COPY --from=packages /opt/elicit /opt/elicit
WORKDIR /srv/elicit
# Only what .dockerignore lets through; it belongs to root, and the site can't change it.
COPY . .

# Outside ELICIT_VAR: a volume there would go on showing the files of the first image that it met.
RUN ELICIT_SECRET_KEY=for-this-command-only ELICIT_VAR=/tmp/build python manage.py collectstatic --noinput \
    && rm -r /tmp/build

# By number, so that a host that asks for no root can see that it is none.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["gunicorn", "elicit.wsgi", "--bind", "0.0.0.0:8000", "--worker-class", "gthread", "--workers", "2", "--threads", "4", "--no-control-socket", "--access-logfile", "-"]
