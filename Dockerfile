# Hilum's roles, without the servers: those are images of their own (docker-compose.yml) or the site's own.
FROM python:3.13.14-slim-trixie AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/hilum
WORKDIR /build
COPY pyproject.toml uv.lock README.md ./
RUN uv sync --frozen --no-dev --no-install-project
COPY hilum hilum
COPY ingest ingest
COPY processors processors
COPY sinks sinks
RUN uv sync --frozen --no-dev --no-editable

FROM python:3.13.14-slim-trixie
# Volumes take owner and rights from here when they are made.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/hilum --shell /usr/sbin/nologin hilum \
    && install -d -o hilum -g hilum -m 0700 /var/lib/hilum /var/lib/hilum/spool /var/lib/hilum/stow
COPY --from=build /opt/hilum /opt/hilum
ENV PATH=/opt/hilum/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HILUM_DATA=/var/lib/hilum
USER hilum
EXPOSE 11112 2575
ENTRYPOINT ["hilum"]
