# Two images, for docker-compose.yaml: `workers` without Airflow, `airflow` with it. Both hold the
# package installed in place, so that its profiles and Flux stages lie where it looks for them,
# and both run as user 50000 of group 0, as Airflow's image does: they share the tokens' volume.

# --- Workers: bridge, sink, simulated fleet, provisioning ------------------------------------
FROM python:3.11.14-slim-bookworm AS workers-build
WORKDIR /opt/headrace
# An empty package brings the dependencies along: a layer that the code does not change.
COPY pyproject.toml constraints.txt ./
RUN mkdir -p include/headrace && touch include/headrace/__init__.py \
    && python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --constraint constraints.txt --editable .
COPY include include
# The containers' file systems are read-only: what is not compiled now never will be.
RUN /opt/venv/bin/python -m compileall -q include/headrace

FROM python:3.11.14-slim-bookworm AS workers
RUN useradd --uid 50000 --gid 0 --home-dir /opt/headrace --no-create-home \
        --shell /usr/sbin/nologin headrace \
    && install --directory --owner 50000 --group 0 --mode 0750 /var/lib/headrace \
    && install --directory --owner 50000 --group 0 --mode 0755 /var/lib/headrace/mqtt
COPY --from=workers-build /opt/venv /opt/venv
COPY --from=workers-build --chown=50000:0 /opt/headrace /opt/headrace
COPY --chown=50000:0 docker/healthcheck.py /opt/headrace/docker/
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /opt/headrace
USER 50000:0
ENTRYPOINT ["headrace"]

# --- Airflow ---------------------------------------------------------------------------------
FROM apache/airflow:3.3.2-python3.11 AS airflow
USER root
RUN install --directory --owner 50000 --group 0 --mode 0775 /opt/headrace \
    && install --directory --owner 50000 --group 0 --mode 0750 /var/lib/headrace /opt/airflow/auth
USER 50000:0
WORKDIR /opt/headrace
COPY --chown=50000:0 pyproject.toml constraints.txt ./
# Synchronised, not added to: the image then holds what `make up` runs with, package by package,
# and none of the many providers that Airflow's image brings along.
RUN mkdir -p include/headrace && touch include/headrace/__init__.py \
    && uv pip compile --quiet --no-cache --extra airflow --constraint constraints.txt \
        --output-file /tmp/lock.txt pyproject.toml \
    && uv pip sync --no-cache --only-binary :all: /tmp/lock.txt \
    && uv pip install --no-cache --no-deps --editable . \
    && rm /tmp/lock.txt
COPY --chown=50000:0 docker/healthcheck.py docker/
COPY --chown=50000:0 include include
COPY --chown=50000:0 plugins plugins
COPY --chown=50000:0 dags dags
